"""The judges of a run: each is named once, and hears each sample of a step once, whoever wants its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_audiorl.judges.base import AsrJudge, Judge, JudgeError, speech_of
from lightning_audiorl.judges.transcript import measures_of
from lightning_audiorl.types import Hypothesis, Speech

AnswerT = TypeVar("AnswerT")
JudgeT = TypeVar("JudgeT", bound="Judge[Any]")

# What counts as a setting of a judge; its modules and tensors are compared as weights.
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset, type(None))


class JudgePanel:
    """The judges of a run, and what they answered about the samples of the step at hand.

    Rewards and metrics ask the panel, not the judge. Samples that a judge has not judged yet go to it together, in the
    order given; for the others its answer is known, failures included. `clear` forgets the answers at a step's end.

    Args:
        judges: by name; a judge takes the name that it has here.

    Example:
        >>> class Deaf(AsrJudge):
        ...     def listen(self, waveforms, rows):
        ...         print(f"{len(waveforms)} clips")
        ...         return [""] * len(waveforms)
        >>> from lightning_audiorl.types import Utterance
        >>> speech = Speech(torch.randn(8000), 8000, torch.zeros(25, dtype=torch.int64))
        >>> sample = Hypothesis(Utterance("row", (), "one two", 1.0), "", speech=speech)
        >>> panel = JudgePanel({"asr": Deaf("deaf", sample_rate_hz=8000)})
        >>> panel.ask("asr", [sample])
        1 clips
        ['']
        >>> panel.ask("asr", [sample])
        ['']
    """

    def __init__(self, judges: Mapping[str, Judge[Any]] | None = None) -> None:
        self.judges: dict[str, Judge[Any]] = {}
        # By judge, then by sample. A sample is the `Speech` object: tensors hash by identity, so equal audio of two
        # samples is judged twice.
        self._answers: dict[str, dict[Speech, Any]] = {}

        for name, judge in (judges or {}).items():
            judge.name = name
            self.judges[name] = judge

    def seat(self, judge: JudgeT | str, kind: type[nn.Module] = nn.Module) -> JudgeT:
        """The panel's own instance of a judge; a judge that it does not know yet joins.

        Rewards and evaluations that were given a judge each hold equal copies of it. One of them is enough: its weights
        are held, placed and moved once.

        Args:
            judge: its name, or the judge.
            kind: class that the judge must have.

        Raises:
            JudgeError: for a name that is unknown, or that of another judge; for a judge of another kind.
        """
        if isinstance(judge, str):
            member = self._named(judge)
        else:
            member = self.judges.setdefault(judge.name, judge)
            self._expect_same(judge, member)

        if not isinstance(member, kind):
            raise JudgeError(
                f"judge '{member.name}' is a {type(member).__name__}; expected a {kind.__name__} here"
            )
        return member  # type: ignore[return-value]

    def ask(self, judge: Judge[AnswerT] | str, hypotheses: Sequence[Hypothesis]) -> list[AnswerT]:
        """One answer per sample: what ``judge.answers`` says of those that it has not judged yet in this step.

        Args:
            judge: its name, or the judge, which joins the panel.
            hypotheses: samples with speech.

        Raises:
            JudgeError: for a hypothesis without speech; see also `seat`.
        """
        member: Judge[AnswerT] = self.seat(judge)
        speeches = [speech_of(hypothesis, member.name) for hypothesis in hypotheses]

        known = self._answers.get(member.name, {})
        new = [i for i, speech in enumerate(speeches) if speech not in known]
        answers: list[AnswerT] = []
        if new:
            answers = member.answers([hypotheses[i] for i in new])

        # Only now: a judge that raises has not answered, and its name must not appear among the transcripts.
        known = self._answers.setdefault(member.name, known)
        for i, answer in zip(new, answers, strict=True):
            known[speeches[i]] = answer
        return [known[speech] for speech in speeches]

    def with_transcripts(self, groups: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """The same samples with the transcripts of this step, for tables and recordings that are written after it."""
        return [self._group_with_transcripts(group) for group in groups]

    def clear(self) -> None:
        """Forget the answers of this step; the judges stay."""
        self._answers.clear()

    def end_step(self) -> dict[str, float]:
        """Forget the answers of this step, and say how sure the judges were of them.

        Returns:
            ``judge/<name>/<measure>`` for what a judge `reports`: the mean over the samples that it listened to, NaN
            where there was none. Nothing of judges that report nothing.
        """
        metrics: dict[str, float] = {}
        for name, known in self._answers.items():
            for measure in getattr(self.judges[name], "reports", ()):
                values = [measures_of(answer).get(measure, math.nan) for answer in known.values()]
                metrics[f"judge/{name}/{measure}"] = _mean_of_numbers(values)
        self.clear()
        return metrics

    def _group_with_transcripts(self, group: Sequence[Hypothesis]) -> list[Hypothesis]:
        return [self._with_transcripts(hypothesis) for hypothesis in group]

    def _with_transcripts(self, hypothesis: Hypothesis) -> Hypothesis:
        speech = hypothesis.speech
        if speech is None:
            return hypothesis

        transcripts = {
            name: _plain(known[speech])
            for name, known in self._answers.items()
            if isinstance(self.judges[name], AsrJudge) and speech in known
        }
        return replace(hypothesis, transcripts=transcripts)

    def _named(self, name: str) -> Judge[Any]:
        if name not in self.judges:
            raise JudgeError(
                f"no judge has the name '{name}', only {sorted(self.judges) or 'none'} are known; name it under "
                "`judges` (model.init_args.judges), or give the judge itself"
            )
        return self.judges[name]

    @staticmethod
    def _expect_same(judge: Judge[Any], member: Judge[Any]) -> None:
        what = "" if judge is member else difference(judge, member)
        if what:
            raise JudgeError(
                f"two judges have the name '{judge.name}', but {what}; what a judge hears is kept by its name: set "
                "init_args.name of one of them, or name the same judge"
            )


def _plain(transcript: str | None) -> str | None:
    """Without what the judge measured: tables and files want the words."""
    return None if transcript is None else str(transcript)


def _mean_of_numbers(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def difference(one: Judge[Any], other: Judge[Any]) -> str:
    """In what two judges differ, in a few words; empty where they are the same: class, settings, weights."""
    if type(one) is not type(other):
        return f"one is a {type(one).__name__}, the other a {type(other).__name__}"

    mine = settings_of(one)
    theirs = settings_of(other)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            return f"{key} is {mine.get(key)!r} in one and {theirs.get(key)!r} in the other"

    return "" if same_weights(one, other) else "their weights differ"


def settings_of(judge: Judge[Any]) -> dict[str, Any]:
    """What a judge was told: its plain, public attributes."""
    return {
        name: value
        for name, value in vars(judge).items()
        if not name.startswith("_") and (isinstance(value, _PLAIN) or is_dataclass(value))
    }


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two judges hold the same tensors under the same names; so do two that hold none.

    Example:
        >>> same_weights(nn.Linear(1, 1), nn.Linear(1, 2))
        False
    """
    # Names first: `torch.equal` of tensors that do not belong together says nothing.
    ours = one.state_dict()
    others = other.state_dict()
    if ours.keys() != others.keys():
        return False
    return all(_equal(tensor, others[name]) for name, tensor in ours.items())


def _equal(one: Tensor, other: Tensor) -> bool:
    """Same type, shape and values; `torch.equal` compares numbers of different types."""
    return one.dtype == other.dtype and torch.equal(one, other)
