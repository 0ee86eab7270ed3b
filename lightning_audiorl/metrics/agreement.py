"""Further judges held out, and whether they put the samples of a text in the order of the judge that rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

import torch
from torch import Tensor

from lightning_audiorl.judges.base import AsrJudge
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics.roles import Judges
from lightning_audiorl.metrics.specs import Format, MetricSpec, percent
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.ops import kendall_tau
from lightning_audiorl.text.normalise import Normaliser, normaliser_for
from lightning_audiorl.types import Hypothesis

_PANEL = "rank agreement of judges (tau)"


def _tau(name: str) -> MetricSpec:
    return MetricSpec(
        name,
        format=Format(digits=2),
        bars=None,
        panel=_PANEL,
        watch="agreement",
        meaning="orders the samples of a text otherwise",
        monitor=False,
    )


def _count(name: str) -> MetricSpec:
    return MetricSpec(name, format=Format(digits=0), bars=None, watch=None, monitor=False)


#: Of a set with several samples per text, and of further ears; ``*`` is the name of an ear. See `agreement_rates`.
AGREEMENT = (
    _tau("judge_tau"),
    _count("judge_tau_groups"),
    MetricSpec("cer_by_*", "lower", percent(), bars=None, panel="CER (%)", monitor=False),
    MetricSpec(
        "judge_gap_by_*",
        format=None,
        bars=None,
        watch="gap",
        meaning="understands more",
        monitor=False,
    ),
    _tau("judge_tau_by_*"),
    _count("judge_tau_groups_by_*"),
)


@dataclass
class EarCounts:
    """Sums of a judge held out over the samples of a set.

    Args:
        errors, characters: of what it heard.
        failures: samples that it failed on.
        tau: Kendall's tau-b with the judge that rewards, added up over ``tau_groups``.
        tau_groups: texts for which there is a tau.
        groups: texts with two samples or more.
    """

    errors: float = 0.0
    characters: float = 0.0
    failures: float = 0.0
    tau: float = 0.0
    tau_groups: float = 0.0
    groups: float = 0.0


def no_ear_counts(judges: Judges) -> Tensor:
    """The state of `ear_counts` with nothing counted yet: a row for the judge held out, and one for each ear."""
    return torch.zeros(1 + len(judges.ears), len(astuple(EarCounts())), dtype=torch.float64)


def ear_counts(
    hypotheses: Sequence[Hypothesis],
    judges: Judges,
    normalisers: Mapping[str, Normaliser],
    panel: JudgePanel,
) -> Tensor:
    """[1 + ears, fields of `EarCounts`] float64 of one batch of samples.

    Args:
        hypotheses: samples with speech, those of a text one after the other.
        judges: whom to ask.
        normalisers: by language code, in place of the built-in table.
        panel: that is asked.
    """
    held_out = (judges.held_out_judge, *judges.ears.values())
    sizes = [len(list(group)) for _, group in groupby(hypotheses, key=lambda one: one.row.id)]
    is_ranked = judges.judge is not None and max(sizes, default=0) > 1
    is_ranked = is_ranked and any(ear is not None for ear in held_out)
    rewarded: list[int | None] = []
    if is_ranked:
        rewarded, _ = _errors(judges.judge, hypotheses, normalisers, panel)

    counts = no_ear_counts(judges)
    for place, ear in enumerate(held_out):
        # What the judge held out heard is counted elsewhere; here it is only ranked.
        is_ear = place > 0
        if ear is None or not (is_ear or is_ranked):
            continue

        errors, characters = _errors(ear, hypotheses, normalisers, panel)
        one = EarCounts()
        if is_ear:
            known = [number for number in errors if number is not None]
            one.errors = sum(known)
            one.characters = characters
            one.failures = len(errors) - len(known)
        if is_ranked:
            taus = group_taus(rewarded, errors, sizes)
            defined = [tau for tau in taus if not math.isnan(tau)]
            one.tau = sum(defined)
            one.tau_groups = len(defined)
            one.groups = sum(size > 1 for size in sizes)
        counts[place] = torch.tensor(astuple(one), dtype=torch.float64)
    return counts


def _errors(
    judge: AsrJudge | str | None,
    hypotheses: Sequence[Hypothesis],
    normalisers: Mapping[str, Normaliser],
    panel: JudgePanel,
) -> tuple[list[int | None], int]:
    """Wrong characters of each sample, None where the judge failed; and characters to say of the others together."""
    assert judge is not None
    errors: list[int | None] = []
    characters = 0
    for hypothesis, transcript in zip(hypotheses, panel.ask(judge, hypotheses), strict=True):
        if transcript is None:
            errors.append(None)
            continue
        row = hypothesis.row
        wrong, spoken = character_errors(row, transcript, normaliser_for(row.lang, normalisers))
        errors.append(wrong)
        characters += spoken
    return errors, characters


def group_taus(
    first: Sequence[int | None],
    second: Sequence[int | None],
    sizes: Sequence[int],
) -> list[float]:
    """Kendall's tau-b of the errors of two judges in each group; NaN where one of them tells no two samples apart.

    Args:
        first, second: errors of each sample; None where a judge failed, which leaves the sample out.
        sizes: samples of each group, one group after the other.

    Example:
        >>> group_taus([0, 1, 4, 2, 2], [1, 3, 9, 0, 5], [3, 2])
        [1.0, nan]
    """
    shape = (len(sizes), max(sizes, default=0))
    scores = torch.zeros(2, *shape, dtype=torch.float64)
    keep = torch.zeros(shape, dtype=torch.bool)

    begin = 0
    for group, size in enumerate(sizes):
        for i in range(size):
            of_first = first[begin + i]
            of_second = second[begin + i]
            if of_first is not None and of_second is not None:
                scores[0, group, i] = of_first
                scores[1, group, i] = of_second
                keep[group, i] = True
        begin += size
    taus: list[float] = kendall_tau(scores[0], scores[1], keep).tolist()
    return taus


def agreement_rates(counts: Tensor, ears: Sequence[str], cer: float) -> dict[str, float]:
    """The metrics of further ears, and of rank agreement; NaN where one is undefined.

    cer_by_<ear>: characters wrong over characters to say.
    judge_gap_by_<ear>: cer_by_<ear> - cer, above 0 where the judge that rewards hears more than the ear.
    judge_tau, judge_tau_by_<ear>: Kendall's tau-b between the errors that the judge that rewards and the judge held out
        (the ear) find in the samples of a text, mean over the texts for which there is one: both find more errors in
        one sample than in another. 1 is the same order; where it falls, more reward no longer means that others
        understand more.
    judge_tau_groups, judge_tau_groups_by_<ear>: texts that the mean is over.

    Those of rank agreement are there where a text has two samples or more: ``num_samples`` of an `EvalDecoding`.

    Args:
        counts: of `ear_counts`, added up over the samples of a set.
        ears: names.
        cer: by the judge that rewards.

    Example:
        >>> held_out = [0.0, 0.0, 0.0, 1.5, 2.0, 4.0]
        >>> ear = [3.0, 30.0, 0.0, -0.5, 1.0, 4.0]
        >>> rates = agreement_rates(torch.tensor([held_out, ear]), ["hmm"], cer=0.05)
        >>> rates["judge_tau"], rates["judge_tau_by_hmm"], round(rates["judge_gap_by_hmm"], 3)
        (0.75, -0.5, 0.05)
    """
    rates: dict[str, float] = {}
    for name, row in zip(("", *ears), counts.tolist(), strict=True):
        one = EarCounts(*row)
        ending = f"_by_{name}" if name else ""
        if name:
            rates[f"cer{ending}"] = _ratio(one.errors, one.characters)
            rates[f"judge_gap{ending}"] = rates[f"cer{ending}"] - cer
        if one.groups:
            rates[f"judge_tau{ending}"] = _ratio(one.tau, one.tau_groups)
            rates[f"judge_tau_groups{ending}"] = one.tau_groups
    return rates


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan
