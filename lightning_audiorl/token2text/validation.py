"""How far the likelihood of a Token2Text can be trusted: beside a judge who listens to the waveform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.judges.base import AsrJudge
from lightning_audiorl.text.errors import ErrorCounts
from lightning_audiorl.token2text.network import Token2Text, with_end
from lightning_audiorl.token2text.training import character_errors
from lightning_audiorl.types import Hypothesis


@dataclass(frozen=True)
class Calibration:
    """A Token2Text and a waveform judge on the same samples.

    Args:
        spearman: rank correlation of the log-likelihood with the judge's error rate, by form ("decoder", "ctc"); -1 is
            perfect, NaN where either is constant.
        cer: error rate of each form's own greedy text, and of the judge ("judge").
        quantiles: by form, one (mean log-likelihood, judge's error rate, samples) for each part of the samples, those
            with the lowest likelihood first.
        num_samples: that were judged; speech without a code is none.
    """

    spearman: dict[str, float]
    cer: dict[str, float]
    quantiles: dict[str, list[tuple[float, float, int]]]
    num_samples: int

    def table(self) -> str:
        """The quantiles as a Markdown table."""
        lines = ["| form | part | log-likelihood per character | judge's CER % | samples |", "|---|---|---|---|---|"]
        for form, parts in self.quantiles.items():
            for number, (likelihood, rate, num) in enumerate(parts, start=1):
                lines.append(f"| {form} | {number} of {len(parts)} | {likelihood:.3f} | {100 * rate:.1f} | {num} |")
        return "\n".join(lines)


@torch.no_grad()
def calibration(
    network: Token2Text,
    hypotheses: Sequence[Hypothesis],
    judge: AsrJudge,
    num_quantiles: int = 4,
    batch_size: int = 64,
) -> Calibration:
    """Compare what a network reads in codes with what a judge hears in the waveforms made of them.

    Args:
        network: in any mode; it reads in eval mode.
        hypotheses: of a policy that speaks (``algorithms.evaluation.hypotheses``), or recordings as `Speech`.
        judge: of the waveforms.
        num_quantiles: parts of equal size.
        batch_size: samples per pass.

    Raises:
        ValueError: where no sample has both codes and a transcript.
    """
    heard = judge.transcribe(hypotheses)
    judged = [(h, text) for h, text in zip(hypotheses, heard, strict=True) if text is not None and _num_codes(h)]
    if not judged:
        raise ValueError("calibration: no sample has codes and a transcript of the judge")
    mode = network.training
    network.eval()
    values: dict[str, list[float]] = {"decoder": [], "ctc": []}
    counts: dict[str, list[ErrorCounts]] = {"decoder": [], "ctc": []}
    for first in range(0, len(judged), batch_size):
        samples = [h for h, _ in judged[first : first + batch_size]]
        codes, lengths = _codes(network, samples)
        encoded, targets = network(codes, lengths), network.targets([h.row for h in samples])
        values["decoder"] += network.text_log_likelihood(encoded, targets).tolist()
        values["ctc"] += network.ctc_log_likelihood(encoded, targets).tolist()
        for form in counts:
            texts = network.transcribe(codes, lengths, ctc=form == "ctc")
            counts[form] += [character_errors(h.row, text) for h, text in zip(samples, texts, strict=True)]
    network.train(mode)
    by_judge = [character_errors(h.row, text) for h, text in judged]
    rates = torch.tensor([count.rate for count in by_judge])
    return Calibration(
        {form: spearman(torch.tensor(each), rates) for form, each in values.items()},
        {name: sum(each, ErrorCounts()).rate for name, each in (counts | {"judge": by_judge}).items()},
        {form: _quantiles(each, by_judge, num_quantiles) for form, each in values.items()},
        len(judged),
    )


def _num_codes(hypothesis: Hypothesis) -> int:
    return 0 if hypothesis.speech is None else len(hypothesis.speech.codes)


def _codes(network: Token2Text, samples: Sequence[Hypothesis]) -> tuple[Tensor, Tensor]:
    """Codes and lengths, with the end of speech where a sample ended by itself."""
    device = network.table.device
    rows = [h.speech.codes for h in samples if h.speech is not None]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    finished = torch.tensor([h.finished for h in samples], device=device)
    return with_end(pad_sequence(rows, batch_first=True).to(device), lengths, network.end, finished)


def _quantiles(values: list[float], counts: list[ErrorCounts], num: int) -> list[tuple[float, float, int]]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    edges = [round(len(order) * part / num) for part in range(num + 1)]
    parts = [order[a:b] for a, b in pairwise(edges) if b > a]
    return [
        (math.fsum(values[i] for i in part) / len(part), sum((counts[i] for i in part), ErrorCounts()).rate, len(part))
        for part in parts
    ]


def spearman(one: Tensor, other: Tensor) -> float:
    """Rank correlation of two [n] tensors, ties at their mean rank; NaN where either is constant."""
    ranks = torch.stack([_mean_ranks(one), _mean_ranks(other)])
    centred = ranks - ranks.mean(-1, keepdim=True)
    norms = centred.norm(dim=-1)
    return math.nan if float(norms.min()) == 0 else float((centred[0] @ centred[1]) / norms.prod())


def _mean_ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
