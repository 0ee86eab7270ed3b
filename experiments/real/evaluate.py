"""What a Whisper policy does with sets of rows: its text, how likely nothing is, its distance from another policy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.data import AsrDataModule
from lightning_audiorl.models import DIGIT_WORDS, WhisperPolicy
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.ops import full_vocabulary_kl
from lightning_audiorl.text import LeaderboardNormaliser, compared, count_errors, normaliser_for
from lightning_audiorl.types import Decoding, PromptBatch, Utterance

Row = dict[str, Any]
"""A row of an evaluation set with what became of it, in plain data."""

GREEDY = Decoding(temperature=0.0)
SAMPLED = Decoding(temperature=1.0)
_NUMBERS = LeaderboardNormaliser()
_PLAIN = normaliser_for("en")


def counts(reference: str, text: str, are_digits: bool = False) -> dict[str, list[int]]:
    """Substitutions, deletions, insertions, words of the reference and of the text, by normaliser.

    Args:
        reference, text: not normalised.
        are_digits: digits were read out one by one; see `digit_by_digit`.

    Example:
        >>> counts("Thirteen apples", "13 apples")
        {'numbers': [0, 0, 0, 2, 2], 'plain': [1, 0, 0, 2, 2]}
    """
    found = {}
    for name, normaliser in (("numbers", _NUMBERS), ("plain", _PLAIN)):
        pair = compared(reference, text, normaliser)
        if are_digits and name == "numbers":
            pair = (digit_by_digit(reference), digit_by_digit(text))

        errors = count_errors(*pair, normaliser.unit)
        found[name] = [
            errors.substitutions,
            errors.deletions,
            errors.insertions,
            errors.reference_length,
            errors.hypothesis_length,
        ]
    return found


def digit_by_digit(text: str) -> str:
    """Every digit a word of its own, said or written; the normaliser that reads numbers makes one word of several.

    Example:
        >>> digit_by_digit("Two, seven: 42-0 to")
        '2 7 4 2 0 to'
    """
    words = re.findall(r"\d|[^\W\d_]+", text.lower())
    return " ".join(str(DIGIT_WORDS.index(word)) if word in DIGIT_WORDS else word for word in words)


def batches(rows: Sequence[Utterance], size: int = 12) -> Iterator[PromptBatch]:
    """The rows with their audio, neighbours in length together."""
    loader = AsrDataModule()
    by_length = sorted(rows, key=lambda row: row.duration_s)
    for start in range(0, len(by_length), size):
        yield loader.load(by_length[start : start + size])


def empty_probabilities(policy: WhisperPolicy, rows: Sequence[Utterance]) -> list[Row]:
    """Of each row: the probability that its answer is empty, and whether the greedy answer is.

    One pass over the prompt says both, for the empty answer is one token.
    """
    found = []
    with policy.evaluating(), torch.no_grad():
        for batch in batches(rows):
            state = policy.prefill(policy.encode(batch))
            probabilities = policy.head(state.hidden).softmax(-1)
            empty = probabilities[:, policy.stop_ids].sum(-1)
            first = probabilities.argmax(-1)

            for row, share, token in zip(batch.rows, empty.tolist(), first.tolist(), strict=True):
                is_empty = token in policy.stop_ids
                kind = str(row.extra.get("kind", ""))
                found.append({"id": row.id, "kind": kind, "p_empty": share, "empty": is_empty})
    return sorted(found, key=lambda one: str(one["id"]))


def transcripts(
    policy: WhisperPolicy, rows: Sequence[Utterance], num_samples: int = 0, seed: int = 0
) -> list[Row]:
    """Greedy text and error counts of each row; with ``num_samples`` the texts of samples at temperature 1, too."""
    found = []
    key = SampleKey(seed, 0, "evaluate/sampled")
    with policy.evaluating(), torch.no_grad():
        for batch in batches(rows):
            context = policy.encode(batch)
            greedy = policy.decode(policy.sample(context, 1, GREEDY, key), context)
            samples: Sequence[Sequence[Any]] = [[]] * len(batch)
            if num_samples:
                rollout = policy.sample(context, num_samples, SAMPLED, key)
                samples = policy.decode(rollout, context)

            for row, texts, drawn in zip(batch.rows, greedy, samples, strict=True):
                one = transcript(row, str(texts[0]))
                if num_samples:
                    one["samples"] = list(drawn)
                found.append(one)
    return sorted(found, key=lambda one: str(one["id"]))


def transcript(row: Utterance, text: str) -> Row:
    """A row with its text and error counts."""
    kind = str(row.extra.get("kind", ""))
    about = {"id": row.id, "kind": kind, "reference": row.text, "text": text}
    return about | counts(row.text, text, are_digits=kind == "digits")


class Distance:
    """KL(policy || start) at each token of the reference texts of some rows, over the whole vocabulary.

    Args:
        start: the policy that training began from.
        rows: with text.
    """

    def __init__(self, start: WhisperPolicy, rows: Sequence[Utterance]) -> None:
        self.rows = list(rows)
        self.head = start.target_head
        self.hidden = [hidden for hidden, _ in self._states(start)]

    def _states(self, policy: WhisperPolicy) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states [rows, tokens, width] and which of them count, batch by batch."""
        with policy.evaluating(), torch.no_grad():
            for batch in batches(self.rows):
                context = policy.encode(batch)
                targets = policy.targets(context, batch.texts)
                yield policy.hidden(context, targets), targets.keep.flatten(0, 1)

    def of(self, policy: WhisperPolicy) -> float:
        """Mean over all tokens, in nats."""
        total = 0.0
        num_tokens = 0
        with torch.no_grad():
            for before, (hidden, keep) in zip(self.hidden, self._states(policy), strict=True):
                logits = policy.target_head(hidden[keep])
                divergence = full_vocabulary_kl(logits, self.head(before[keep]))
                total += float(divergence.sum())
                num_tokens += len(divergence)
        return total / num_tokens


class LongForm:
    """Long audio by transformers' own long-form decoding, with timestamps, of an exported folder.

    No fallback over temperatures: one greedy pass. The encoder is the same in all exports, so its outputs are kept by
    the content of a window, in a folder.

    Args:
        rows: longer than a window.
        folder: of the encoder's outputs.
    """

    def __init__(self, rows: Sequence[Utterance], folder: Path) -> None:
        loader = AsrDataModule()
        self.rows = list(rows)
        self.folder = folder
        self.audio = []
        for row in self.rows:
            self.audio.append(loader.load([row]).waveform[0].numpy())

    def transcripts(self, export: Path) -> list[Row]:
        """Text and error counts of each row."""
        model = WhisperForConditionalGeneration.from_pretrained(export)
        processor = WhisperProcessor.from_pretrained(export)
        self._keep_encoded(model)
        inputs = processor(
            self.audio,
            sampling_rate=16_000,
            return_tensors="pt",
            truncation=False,
            padding="longest",
            return_attention_mask=True,
        )
        with torch.no_grad():
            tokens = model.generate(
                **inputs, return_timestamps=True, language="en", task="transcribe"
            )
        texts = processor.batch_decode(tokens, skip_special_tokens=True)
        return [transcript(row, text) for row, text in zip(self.rows, texts, strict=True)]

    def _keep_encoded(self, model: WhisperForConditionalGeneration) -> None:
        """Have windows that were encoded before read from the folder."""
        encoder = model.get_encoder()
        encode = encoder.forward
        self.folder.mkdir(parents=True, exist_ok=True)

        def forward(input_features: Tensor, *args: Any, **kwargs: Any) -> Any:
            states = []
            for window in input_features:
                digest = hashlib.blake2b(window.contiguous().numpy().tobytes(), digest_size=16)
                path = self.folder / f"{digest.hexdigest()}.pt"
                if not path.is_file():
                    output = encode(window[None], *args, **kwargs)
                    torch.save(output.last_hidden_state, path)
                states.append(torch.load(path))

            # One window's output again, with all states in the place of its own.
            from transformers.modeling_outputs import BaseModelOutput

            return BaseModelOutput(last_hidden_state=torch.cat(states))

        encoder.forward = forward
