"""Training of a small character recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_audiorl.codecs.network_training import val_set_name
from lightning_audiorl.judges.models.ctc import BLANK, CtcNetwork, greedy_text
from lightning_audiorl.judges.training.base import JudgeTraining
from lightning_audiorl.text.compare import without_sounds
from lightning_audiorl.text.errors import ErrorCounts, count_errors
from lightning_audiorl.text.normalise import normaliser_for
from lightning_audiorl.types import PromptBatch, Utterance


def character_ids(row: Utterance, characters: str) -> list[int]:
    """The row's normalised text as ids of a `CtcNetwork`.

    Raises:
        ValueError: for a character that is not among ``characters``, naming row and character.

    Example:
        >>> character_ids(Utterance("row", (), "Ab b!", 1.0), "ab ")
        [1, 2, 3, 2]
    """
    text = normaliser_for(row.lang).normalise(without_sounds(row.reference))
    if unknown := sorted(set(text) - set(characters)):
        raise ValueError(
            f"row {row.id!r}: its text has {unknown[0]!r}, which is not among the judge's characters {characters!r}; "
            "give the network more characters, or leave the row out"
        )
    return [1 + characters.index(char) for char in text]


def frames_needed(ids: Sequence[int]) -> int:
    """The fewest frames in which CTC can write ``ids``: one each, and a blank between equal neighbours.

    Example:
        >>> frames_needed([1, 2, 2])
        4
    """
    num_repeats = sum(one == other for one, other in pairwise(ids))
    return len(ids) + num_repeats


class CtcTraining(JudgeTraining):
    """Connectionist temporal classification (Graves et al. 2006) of the rows' characters.

    Logs ``loss``, and for every validation set ``val/<set>/cer`` (spaces left out) and ``val/<set>/exact``.

    Args:
        network: `LogMelGru` or `MfccConv`.
        kwargs: see `JudgeTraining`.
    """

    network: CtcNetwork

    def __init__(self, network: CtcNetwork, num_steps: int, **kwargs: Any) -> None:
        super().__init__(network, num_steps, **kwargs)
        self._counts: dict[str, list[ErrorCounts]] = {}

    def loss(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        rows: Sequence[Utterance],
    ) -> Tensor:
        targets = [character_ids(row, self.network.characters) for row in rows]
        log_probs, lengths = self.network(waveform, num_samples)

        # CTC's loss of a text without an alignment is infinite; its row is wrong, and named.
        for row, ids, length in zip(rows, targets, lengths.tolist(), strict=True):
            needed = frames_needed(ids)
            if length < needed:
                raise ValueError(
                    f"row {row.id!r}: {length} frames of audio for {len(ids)} characters, CTC needs {needed}; is its "
                    "text that of its audio?"
                )

        flat = torch.cat([torch.tensor(ids, dtype=torch.long) for ids in targets]).to(
            log_probs.device
        )
        sizes = torch.tensor([len(ids) for ids in targets], device=log_probs.device)
        loss: Tensor = nn.functional.ctc_loss(
            log_probs.transpose(0, 1), flat, lengths, sizes, BLANK
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the counts."""
        self._counts = {}

    def validation_step(
        self,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the edits of the best paths."""
        of_set = self._counts.setdefault(val_set_name(self, dataloader_idx), [])

        log_probs, lengths = self.network(*self.inputs(batch))
        best = log_probs.argmax(-1).tolist()
        for row, ids, length in zip(batch.rows, best, lengths.tolist(), strict=True):
            normaliser = normaliser_for(row.lang)
            text = greedy_text(ids[:length], self.network.characters)

            # Spaces do not count: where a word ends is not heard.
            hypothesis = normaliser.normalise(text).replace(" ", "")
            reference = normaliser.normalise(without_sounds(row.reference)).replace(" ", "")
            of_set.append(count_errors(reference, hypothesis, "char"))

    def on_validation_epoch_end(self) -> None:
        """Log the error rate of every set."""
        metrics = {}
        for name, counts in self._counts.items():
            num_exact = sum(one.errors == 0 for one in counts)
            metrics[f"{name}/cer"] = sum(counts, ErrorCounts()).rate
            metrics[f"{name}/exact"] = num_exact / len(counts)
        self.finish_validation(metrics)
