"""The parts of ../whisper_step.py: one GRPO step on a real Whisper, ours and as one writes it with transformers."""
