"""How far the likelihood of a Token2Text can be trusted: beside an ASR judge of the waveforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        """The quantiles as a Markdown table.

        Example:
            >>> print(Calibration({}, {}, {"ctc": [(-1.5, 0.25, 8)]}, 8).table())
            | form | part | log-likelihood per character | judge's CER % | samples |
            |---|---|---|---|---|
            | ctc | 1 of 1 | -1.500 | 25.0 | 8 |
        """
        lines = [
            "| form | part | log-likelihood per character | judge's CER % | samples |",
            "|---|---|---|---|---|",
        ]
        for form, parts in self.quantiles.items():
            for number, (likelihood, rate, num) in enumerate(parts, start=1):
                part = f"{number} of {len(parts)}"
                lines.append(f"| {form} | {part} | {likelihood:.3f} | {100 * rate:.1f} | {num} |")
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
        hypotheses: samples of a policy that speaks, or recordings as `Speech`.
        judge: of the waveforms.
        num_quantiles: parts of equal size.
        batch_size: samples per pass.

    Raises:
        ValueError: where no sample has both codes and a transcript.
    """
    transcripts = judge.transcribe(hypotheses)
    judged = [
        (hypothesis, transcript)
        for hypothesis, transcript in zip(hypotheses, transcripts, strict=True)
        if transcript is not None and _num_codes(hypothesis)
    ]
    if not judged:
        raise ValueError("calibration: no sample has codes and a transcript of the judge")

    # What the network says of these samples, beside what the judge does.
    read = _read([hypothesis for hypothesis, _ in judged], network, batch_size)
    by_judge = [character_errors(hypothesis.row, transcript) for hypothesis, transcript in judged]
    rates = torch.tensor([count.rate for count in by_judge])
    counts = {form: of_form.counts for form, of_form in read.items()}
    counts["judge"] = by_judge

    return Calibration(
        spearman={
            form: spearman(torch.tensor(of_form.values), rates) for form, of_form in read.items()
        },
        cer={name: sum(each, ErrorCounts()).rate for name, each in counts.items()},
        quantiles={
            form: _quantiles(of_form.values, by_judge, num_quantiles)
            for form, of_form in read.items()
        },
        num_samples=len(judged),
    )


@dataclass
class _OfForm:
    """What one form of a network says of samples: log-likelihoods of their texts, and edits of its own text."""

    values: list[float] = field(default_factory=list)
    counts: list[ErrorCounts] = field(default_factory=list)


def _read(
    hypotheses: Sequence[Hypothesis],
    network: Token2Text,
    batch_size: int,
) -> dict[str, _OfForm]:
    """By form, "decoder" and "ctc"; in eval mode."""
    decoder = _OfForm()
    ctc = _OfForm()

    mode = network.training
    network.eval()
    for first in range(0, len(hypotheses), batch_size):
        samples = hypotheses[first : first + batch_size]
        codes, lengths = _codes(network, samples)
        targets = network.targets([hypothesis.row for hypothesis in samples])

        encoded = network(codes, lengths)
        decoder.values += network.text_log_likelihood(encoded, targets).tolist()
        ctc.values += network.ctc_log_likelihood(encoded, targets).tolist()

        for of_form in (decoder, ctc):
            texts = network.transcribe(codes, lengths, ctc=of_form is ctc)
            of_form.counts += [
                character_errors(h.row, text) for h, text in zip(samples, texts, strict=True)
            ]
    network.train(mode)
    return {"decoder": decoder, "ctc": ctc}


def _num_codes(hypothesis: Hypothesis) -> int:
    return 0 if hypothesis.speech is None else len(hypothesis.speech.codes)


def _codes(network: Token2Text, samples: Sequence[Hypothesis]) -> tuple[Tensor, Tensor]:
    """Codes and lengths, with the end of speech where a sample ended by itself."""
    device = network.table.device
    rows = [hypothesis.speech.codes for hypothesis in samples if hypothesis.speech is not None]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    finished = torch.tensor([hypothesis.finished for hypothesis in samples], device=device)
    return with_end(pad_sequence(rows, batch_first=True).to(device), lengths, network.end, finished)


def _quantiles(
    values: list[float],
    counts: list[ErrorCounts],
    num: int,
) -> list[tuple[float, float, int]]:
    """(mean value, error rate, samples) of each of ``num`` parts by value, the lowest first; fewer for few samples."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    edges = [round(len(order) * part / num) for part in range(num + 1)]

    quantiles = []
    for start, end in pairwise(edges):
        part = order[start:end]
        if part:
            mean = math.fsum(values[i] for i in part) / len(part)
            rate = sum((counts[i] for i in part), ErrorCounts()).rate
            quantiles.append((mean, rate, len(part)))
    return quantiles


def spearman(one: Tensor, other: Tensor) -> float:
    """Rank correlation of two [n] tensors, ties at their mean rank; NaN where either is constant.

    Example:
        >>> round(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9.0, 4.0, 1.0])), 6)
        -1.0
    """
    ranks = torch.stack([_mean_ranks(one), _mean_ranks(other)])
    centred = ranks - ranks.mean(-1, keepdim=True)
    norms = centred.norm(dim=-1)
    if float(norms.min()) == 0:
        return math.nan
    return float((centred[0] @ centred[1]) / norms.prod())


def _mean_ranks(values: Tensor) -> Tensor:
    """[n] ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
