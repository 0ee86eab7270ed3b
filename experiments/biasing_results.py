"""B-WER and U-WER of published hypotheses over LibriSpeech's biasing lists, beside the results published with them.

``python -m experiments.biasing_results is21_deep_bias`` with the folder of a checkout of facebookresearch/fbai-speech.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from lightning_audiorl.metrics.functional import align, biased_errors
from lightning_audiorl.text import ErrorCounts

_RESULT = re.compile(r"^(WER|U-WER|B-WER): error_rate=([\d.]+)", re.MULTILINE)


def references(path: Path) -> dict[str, tuple[str, list[list[str]]]]:
    """Text and biased words of each utterance."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, text, rare, _ = line.split("\t")
        found[name] = (text, [[word] for word in json.loads(rare)])
    return found


def rates(hypotheses: Path, said: dict[str, tuple[str, list[list[str]]]]) -> dict[str, float]:
    """WER, U-WER and B-WER in percent."""
    whole = ErrorCounts()
    biased = ErrorCounts()
    for line in hypotheses.read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition("\t")
        reference, rare = said[name]
        alignment = align(reference, text.strip())
        whole += ErrorCounts(
            len(alignment.hit_at),
            alignment.substitutions,
            alignment.deletions,
            alignment.insertions,
        )
        biased += biased_errors(alignment, rare)

    others = whole.errors - biased.errors
    num_others = whole.reference_length - biased.reference_length
    return {
        "WER": 100 * whole.rate,
        "U-WER": 100 * others / num_others,
        "B-WER": 100 * biased.rate,
    }


def main() -> None:
    """Print each pair, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="is21_deep_bias of a checkout")
    folder: Path = parser.parse_args().folder

    num_pairs = 0
    differences: list[float] = []
    for part in ("test-clean", "test-other"):
        said = references(folder / "ref" / f"{part}.biasing_100.tsv")
        for hypotheses in sorted((folder / "hyp").glob(f"{part}.*.tsv")):
            published = (folder / "results" / f"{hypotheses.name}.result").read_text()
            theirs = {name: float(rate) for name, rate in _RESULT.findall(published)}
            ours = rates(hypotheses, said)

            shown = ", ".join(f"{name} {rate:.4f} %" for name, rate in ours.items())
            print(f"{hypotheses.stem}: {shown}")
            for name, rate in ours.items():
                if abs(rate - theirs[name]) > 1e-10:
                    print(f"    {name} is published as {theirs[name]:.4f} %")
                    differences.append(abs(rate - theirs[name]))
            num_pairs += 1

    largest = max(differences, default=0.0)
    print(
        f"{num_pairs} pairs: {3 * num_pairs - len(differences)} of {3 * num_pairs} rates are the published ones, the "
        f"others differ by at most {largest:.4f} %"
    )


if __name__ == "__main__":
    main()
