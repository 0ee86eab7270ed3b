"""The real Whisper through this library beside transformers' own class: log-probs, texts, batches, export.

    python -m experiments.real.parity --real REAL

REAL holds ``whisper-base`` and ``asterisk/test.jsonl``, see experiments/real/data.py. Exit code 1 where a log-prob of a
sample is 1e-4 from the class's own, or 1e-5 on average; where a greedy text is not that of ``generate``; where a clip
beside others is not what it is alone; or where the export decodes otherwise. Half a minute on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.data import AsrDataModule, read_manifest
from lightning_audiorl.models import Finetune, SampleKey, WhisperPolicy
from lightning_audiorl.ops import token_log_probs
from lightning_audiorl.types import Decoding, PromptBatch, Rollout

NUM_CLIPS = 6
GROUP_SIZE = 2
KEY = SampleKey(seed=0, rl_step=0)
GREEDY = Decoding(temperature=0.0, max_new_tokens=64)
SAMPLED = Decoding(temperature=1.0, max_new_tokens=64)
_PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


def shared(policy: WhisperPolicy, batch: PromptBatch, rollout: Rollout) -> Tensor:
    """[B, G, T] as the update computes them: each clip encoded once, its prompt read once."""
    hidden = policy.hidden(policy.encode(batch), rollout)
    keep = rollout.keep.flatten(0, 1)
    scored = token_log_probs(hidden, policy.head, rollout.tokens.flatten(0, 1), keep)
    return scored.log_probs.view(rollout.tokens.shape)


def own(model: Any, inputs: Tensor, policy: WhisperPolicy, rollout: Rollout) -> Tensor:
    """[B, G, T] by the class's forward, one sample at a time; what is suppressed has no part in the softmax."""
    prompt = torch.tensor(policy.tokenizer.convert_tokens_to_ids(list(_PROMPT)))
    found = torch.zeros_like(rollout.log_probs)
    for b in range(len(inputs)):
        for g in range(GROUP_SIZE):
            completion = rollout.tokens[b, g, rollout.keep[b, g]]
            ids = torch.cat([prompt, completion])[None]
            logits = model(inputs[b : b + 1], decoder_input_ids=ids, use_cache=False).logits[0]
            logits = logits[len(prompt) - 1 : -1].masked_fill(~policy.allowed, -torch.inf)
            scored = logits.log_softmax(-1).gather(-1, completion[:, None])
            found[b, g, : len(completion)] = scored[:, 0]
    return found


def written(policy: WhisperPolicy, batch: PromptBatch) -> list[str]:
    """Greedy texts of a policy."""
    context = policy.encode(batch)
    groups = policy.decode(policy.sample(context, 1, GREEDY, KEY), context)
    return [group[0] for group in groups]


def generated(model: Any, processor: Any, inputs: Tensor) -> list[str]:
    """Greedy texts of the class."""
    tokens = model.generate(inputs, language="en", do_sample=False, max_new_tokens=64)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]


@torch.no_grad()
def compare(real: Path) -> bool:
    """Print what is found; whether all of it is as it should be."""
    start = str(real / "whisper-base")
    policy = WhisperPolicy(start, Finetune(projector=False, lm="all")).eval()
    model = WhisperForConditionalGeneration.from_pretrained(start).eval()
    processor = WhisperProcessor.from_pretrained(start)

    rows = list(read_manifest(real / "asterisk" / "test.jsonl"))[:NUM_CLIPS]
    batch = AsrDataModule().load(rows)
    waves = [batch.waveform[b, : int(batch.num_samples[b])].numpy() for b in range(len(rows))]
    inputs = processor(waves, sampling_rate=16000, return_tensors="pt").input_features

    context = policy.encode(batch)
    rollout = policy.sample(context, GROUP_SIZE, SAMPLED, KEY)
    ours = shared(policy, batch, rollout)
    theirs = own(model, inputs, policy, rollout)
    apart = (ours - theirs).abs()[rollout.keep]
    shifted = (ours[..., 1:] - theirs[..., :-1]).abs()[rollout.keep[..., 1:]]
    sampled = (rollout.log_probs - ours).abs()[rollout.keep]
    print(f"{len(apart)} tokens of {len(rows)} clips, {GROUP_SIZE} samples each, float32")
    print(f"update beside the class: at most {apart.max():.1e}, mean {apart.mean():.1e}")
    print(f"one position further: median {shifted.median():.1e}")
    print(f"rollout beside the update: at most {sampled.max():.1e}")

    together = written(policy, batch)
    alone = [written(policy, batch.select([b]))[0] for b in range(len(rows))]
    with tempfile.TemporaryDirectory() as folder:
        policy.export(folder)
        exported = WhisperForConditionalGeneration.from_pretrained(folder).eval()
        is_whole = all(
            torch.equal(value, exported.state_dict()[name])
            for name, value in model.state_dict().items()
        )
        of_export = generated(exported, WhisperProcessor.from_pretrained(folder), inputs)

    checks = {
        "log-probs within 1e-4, 1e-5 on average": bool(apart.max() < 1e-4 and apart.mean() < 1e-5),
        "a shift by one position would show": bool(shifted.median() > 1e-2),
        "greedy texts are generate's": together == generated(model, processor, inputs),
        "clips alone are as beside others": together == alone,
        "the export has the start's weights": is_whole,
        "the export decodes alike": of_export == together,
    }
    for name, holds in checks.items():
        print(f"{'yes' if holds else 'NO ':3s} {name}")
    return all(checks.values())


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    sys.exit(0 if compare(parser.parse_args().real) else 1)


if __name__ == "__main__":
    main()
