"""The parts of ../grpo_step.py: one GRPO step of ours, of the naive way and of TRL, on the same language model."""
