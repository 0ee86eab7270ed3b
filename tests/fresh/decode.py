"""What transformers alone makes of an export: a script for an environment that has it, torch and soundfile.

python tests/fresh/decode.py FOLDER    # with clips/*.wav, and an export in each other folder; writes decoded.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import soundfile
import torch
import transformers

MAX_NEW_TOKENS = 20


def main(folder: Path) -> None:
    """Decode every clip by every export, and write the texts by their names."""
    clips = []
    for path in sorted((folder / "clips").glob("*.wav")):
        wave, rate = soundfile.read(path, dtype="float32")
        assert rate == 16000
        clips.append(wave)

    found = {}
    for export in sorted(path.parent for path in folder.glob("*/config.json")):
        found[export.name] = decoded(export, clips)
    (folder / "decoded.json").write_text(json.dumps(found, indent=1))


def decoded(folder: Path, clips: list[Any]) -> list[str]:
    """The texts of clips, by the class that the folder's own config.json names."""
    config = json.loads((folder / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)

    texts = []
    for clip in clips:
        inputs = asked(config["model_type"], processor, clip)
        how = {"language": "en"} if config["model_type"] == "whisper" else {}
        with torch.no_grad():
            tokens = model.generate(
                **inputs, **how, do_sample=False, max_new_tokens=MAX_NEW_TOKENS
            )[0]

        # A model that reads the clip in its prompt, or that is told the language, gives the prompt back.
        prompt = inputs.get("decoder_input_ids", inputs.get("input_ids"))
        if prompt is not None:
            tokens = tokens[prompt.shape[1] :]
        text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        texts.append(text.split("<asr_text>", 1)[-1].strip())
    return texts


def asked(model_type: str, processor: Any, clip: Any) -> dict[str, Any]:
    """What ``generate`` takes: the request for a transcript of the family's model card."""
    if model_type in ("fun_asr_nano", "qwen3_asr"):
        return dict(processor.apply_transcription_request(clip, language="en"))
    if model_type == "glmasr":
        return dict(processor.apply_transcription_request(clip))
    if model_type == "canary":
        return dict(processor.apply_transcription_request(clip, source_language="en"))
    if model_type in ("whisper", "moonshine"):
        return dict(processor(clip, sampling_rate=16000, return_tensors="pt"))
    if model_type == "voxtral":
        return voxtral(processor, clip)

    content: Any = [{"type": "audio"}, {"type": "text", "text": "Transcribe the speech."}]
    if model_type == "granite_speech":
        content = "can you transcribe the speech into a written format?"
        content = f"{processor.audio_token}{content}"
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    rate = {} if model_type == "granite_speech" else {"sampling_rate": 16000}
    return dict(processor(text=text, audio=clip, return_tensors="pt", **rate))


def voxtral(processor: Any, clip: Any) -> dict[str, Any]:
    """Its processor asks with mistral-common alone; these are the tokens that it writes."""
    features = processor.feature_extractor(
        clip, sampling_rate=16000, return_tensors="pt", padding="max_length"
    )["input_features"]
    names = ["[INST]", "[BEGIN_AUDIO]", *["[AUDIO]"] * 375, "[/INST]", "lang:en", "[TRANSCRIBE]"]
    tokens = processor.tokenizer.convert_tokens_to_ids(names)
    ids = torch.tensor([[processor.tokenizer.bos_token_id, *tokens]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": features,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
