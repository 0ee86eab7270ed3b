"""Write docs/metrics.md: every metric that a run logs, from the specs of `lightning_audiorl.metrics`.

    python -m tools.metrics            prints the page
    python -m tools.metrics --write    puts it into docs/

A test holds the page to the specs, and what a run logs to the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_audiorl.metrics.about import About
from lightning_audiorl.metrics.about_steps import STEP
from lightning_audiorl.metrics.activity import ACTIVITY
from lightning_audiorl.metrics.agreement import AGREEMENT
from lightning_audiorl.metrics.confidence import CONFIDENCE
from lightning_audiorl.metrics.reference import ReferenceProbability
from lightning_audiorl.metrics.specs import RECOGNITION, SYNTHESIS, MetricSpec, evaluation_spec

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

What a run logs to TensorBoard, a CSV file or W&B, and what the tables of a report stand on. Written by
`python -m tools.metrics --write` from the specs of `lightning_audiorl.metrics`; words are explained in the
[glossary](glossary.md).

Shares are fractions in files and curves, and percent in tables. What is healthy is said by comparison with the start of
the same run, wherever no bound is named; the bounds are those at which the run itself warns
([hacking watch](reports.md#while-a-run-lasts)), and only where the change is beyond chance in the rows of the set.
"""

_OF_SETS = """\
Logged as `val/<set>/<name>`, of another decoding than the first as `val/<set>/<decoding>/<name>`, and of a test as
`test/...`. A metric that is undefined in a set, such as the WER of clips without speech, is not logged.
"""

_OF_STEPS = """\
Logged at each RL step, or each `log_every_n_steps`. A `*` stands for any name: of a reward, a loss, a phase. Of several
losses the metrics of each but the first have its name before theirs, such as `diffro/kl`.
"""

_DIRECTIONS = {"lower": "lower", "higher": "higher", "near one": "near 1", None: "-"}
_HEADER = ("metric", "meaning", "unit, range", "better", "healthy", "where it is not")


def _spec_line(spec: MetricSpec) -> list[str]:
    about = spec.told
    if about is None:
        raise ValueError(
            f"{spec.name}: nothing is said of it; give its MetricSpec about=About(...), or add it to metrics/about.py"
        )
    better = _DIRECTIONS[spec.better]
    return [f"`{spec.name}`", about.what, _values(about), better, about.healthy, about.do]


def _values(about: About) -> str:
    return ", ".join(part for part in (about.unit, about.range) if part != "-") or "-"


_OF_JUDGES = """
Where a text has several samples, an evaluation has further ears, or a judge says how sure it is
([judges](judges.md)).
"""


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_sets(specs: Iterable[MetricSpec]) -> str:
    return _table(_HEADER, [_spec_line(spec) for spec in specs])


def _of_steps() -> str:
    lines = []
    for name, about in STEP.items():
        lines.append([f"`{name}`", about.what, _values(about), about.healthy, about.do])
    return _table([title for title in _HEADER if title != "better"], lines)


def page() -> str:
    """The page as it should stand in docs/."""
    synthesis = [spec for spec in SYNTHESIS if spec not in RECOGNITION]
    parts = [
        _HEAD,
        "## Of evaluation sets",
        _OF_SETS,
        "### Recognition",
        _of_sets([*RECOGNITION, evaluation_spec("skipped_rows"), *ReferenceProbability.specs]),
        "### Synthesis",
        "`cer` and `utterance_wer` stand above.",
        _of_sets([*synthesis, *ACTIVITY]),
        # Only where they are asked for.
        "### Judges",
        _OF_JUDGES,
        _of_sets([*AGREEMENT, *CONFIDENCE]),
        "## Of an RL step",
        _OF_STEPS,
        _of_steps(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write it to docs/metrics.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
