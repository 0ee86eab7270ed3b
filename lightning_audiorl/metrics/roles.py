"""The judges of an evaluation of speech by their role, and what is to be held out from whom."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_audiorl.judges.base import AsrJudge, Judge, SpeakerEncoder
from lightning_audiorl.judges.panel import JudgePanel, same_weights

_log = logging.getLogger(__name__)

#: Before the name of an ear, in the name of its role.
EAR = "ears."


@dataclass(frozen=True)
class Judges:
    """The judges of an evaluation by their role; the metrics of a role that is None are NaN.

    Args:
        judge: the ASR judge of the reward, or its name on a panel.
        held_out_judge: another one.
        encoder: the speaker encoder of the reward, or its name.
        held_out_encoder: another one.
        ears: further ASR judges that are held out, by the name that their metrics have.

    Example:
        >>> Judges(judge="asr", encoder="speaker").complete, Judges().present()
        (False, [])
    """

    judge: AsrJudge | str | None = None
    held_out_judge: AsrJudge | str | None = None
    encoder: SpeakerEncoder | str | None = None
    held_out_encoder: SpeakerEncoder | str | None = None
    ears: Mapping[str, AsrJudge | str] = field(default_factory=dict)

    def _by_role(self) -> dict[str, Judge[Any] | str | None]:
        """Those of all roles, the ears each with a role of its own."""
        roles = dict(vars(self))
        for name, ear in roles.pop("ears").items():
            roles[f"{EAR}{name}"] = ear
        return roles

    def present(self) -> list[Judge[Any]]:
        """Those that were given as judges, or taken from a panel by `on`."""
        return [judge for judge in self._by_role().values() if isinstance(judge, Judge)]

    @property
    def names(self) -> dict[str, str]:
        """Names by role; roles that are None are left out.

        Example:
            >>> Judges(judge="asr", ears={"hmm": "sphinx"}, held_out_encoder="ecapa").names
            {'judge': 'asr', 'held_out_encoder': 'ecapa', 'ears.hmm': 'sphinx'}
        """
        names = {}
        for role, judge in self._by_role().items():
            if judge is not None:
                names[role] = judge if isinstance(judge, str) else judge.name
        return names

    @property
    def complete(self) -> bool:
        """Whether none of them is a mere name."""
        return not any(isinstance(judge, str) for judge in self._by_role().values())

    def on(self, panel: JudgePanel) -> Judges:
        """The same roles with the panel's own instances.

        Raises:
            JudgeError: for a name that the panel does not know, that of another judge, or that of another kind.
        """
        kinds: dict[str, type[nn.Module]] = {
            "judge": AsrJudge,
            "held_out_judge": AsrJudge,
            "encoder": SpeakerEncoder,
            "held_out_encoder": SpeakerEncoder,
        }
        seated = {}
        for role, kind in kinds.items():
            judge = getattr(self, role)
            seated[role] = None if judge is None else panel.seat(judge, kind)
        ears = {name: panel.seat(ear, AsrJudge) for name, ear in self.ears.items()}
        return Judges(**seated, ears=ears)


def named_ears(ears: Mapping[str, AsrJudge | str] | None) -> dict[str, AsrJudge | str]:
    """The ears of an evaluation; a judge takes the name that it has here.

    Raises:
        ValueError: for a name that cannot end the name of a metric.
    """
    named = dict(ears or {})
    for name, ear in named.items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"SpeechEvaluation.ears: {name!r} is no name for metrics to end in; want letters, digits, '_', '-', '.'"
            )
        if isinstance(ear, Judge):
            ear.name = name
    return named


#: The former name of `Judges`.
Listeners = Judges


def check_held_out(judges: Judges) -> None:
    """See that a judge held out is another model than the one that rewards; warn where nothing is held out.

    Raises:
        ValueError: for two judges of one name, or of the same weights.
    """
    names = [judge.name for judge in judges.present()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"SpeechEvaluation: {len(names)} judges, but the name '{twice[0]}' comes more than once, and what a "
            "judge hears is kept by its name; set init_args.name"
        )

    pairs = [(judges.judge, judges.held_out_judge), (judges.encoder, judges.held_out_encoder)]
    pairs += [(judges.judge, ear) for ear in judges.ears.values()]
    for one, other in pairs:
        if not isinstance(one, Judge):
            continue
        if not isinstance(other, Judge):
            if judges.ears and one is judges.judge:
                continue
            _log.warning(
                "SpeechEvaluation: nothing is held out beside '%s'; a policy that learns to please what rewards it "
                "will look like one that gets better",
                one.name,
            )
        elif one.state_dict() and same_weights(one, other):
            raise ValueError(
                f"SpeechEvaluation: '{other.name}' is held out, but has the weights of '{one.name}' that rewards: "
                "give another model"
            )
