"""What a built training mix consists of, as numbers (``summary.json``) and for reading (``summary.md``)."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from lightning_audiorl.data.audio.content_hash import Stretch
from lightning_audiorl.data.mix.shares import Share
from lightning_audiorl.types import Utterance

#: Upper edges of the length histogram's bars, in seconds; one more bar holds what is longer.
EDGES_S = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0)
BARS = tuple(f"{low:g}-{high:g} s" for low, high in pairwise((0.0, *EDGES_S)))
BARS += (f"over {EDGES_S[-1]:g} s",)
#: Refused rows named in the summary, of each subset.
NUM_NAMED = 5
_BAR_WIDTH = 40


@dataclass
class SubsetSummary:
    """What one subset consists of; rows are added as they are written.

    Args:
        share: its part of every batch.
        builder: class of its rule.
        wanted: rows asked for; None is all.
        seen: rows of its source.
        removed: rows that each rule took out; rows that only found no place are in none.
        refused: rows that would have entered but hold evaluation audio.
        named: the first of them, with what they met.

    Attributes:
        kept, seconds: number and length of its rows.
        lengths: rows per bar of the length histogram, see `BARS`.
    """

    share: Share
    builder: str
    wanted: int | None
    seen: int
    removed: dict[str, int]
    refused: int
    named: list[str]
    kept: int = 0
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=lambda: [0] * len(BARS))
    # Hashes, 8 bytes each, so that overlaps of large subsets can be counted.
    _rows: array[int] = field(default_factory=lambda: array("Q"))
    _audio: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, row: Utterance, stretches: Sequence[Stretch]) -> None:
        """Count one row of the subset, and note which rows and which audio it is made of."""
        self.kept += 1
        self.seconds += row.duration_s
        self.lengths[bisect_right(EDGES_S, row.duration_s)] += 1

        # A constructed row shares rows with every subset that holds one of its sources.
        made_from = sources_of(row) or (row.id,)
        self._rows.extend(_number(source) for source in made_from)
        self._audio.extend(_number(stretch.cut) for stretch in stretches if stretch.cut)

    def to_json(self) -> dict[str, Any]:
        """Everything but the overlap, for JSON."""
        return {
            "share": self.share,
            "builder": self.builder,
            "wanted": self.wanted,
            "seen": self.seen,
            "removed": self.removed,
            "refused": self.refused,
            "refused_first": self.named,
            "kept": self.kept,
            "hours": self.seconds / 3600,
            "lengths": dict(zip(BARS, self.lengths, strict=True)),
        }

    def shared(self, other: SubsetSummary) -> tuple[int, int]:
        """Source rows (by id) and stretches of audio (by content) that both are made of."""
        rows = np.intersect1d(np.asarray(self._rows), np.asarray(other._rows))
        audio = np.intersect1d(np.asarray(self._audio), np.asarray(other._audio))
        return len(rows), len(audio)


def sources_of(row: Utterance) -> tuple[str, ...]:
    """Ids of the rows that a constructed row is made from; none for a plain row."""
    sources = row.extra.get("sources", ())
    if isinstance(sources, list | tuple):
        return tuple(str(source) for source in sources)
    return (str(sources),)


def _number(text: str) -> int:
    """64 bits of a hash."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def summarise(
    subsets: Mapping[str, SubsetSummary],
    key: str,
    seed: int,
    kept_out: Mapping[str, int],
) -> dict[str, Any]:
    """What a mix consists of, for JSON.

    Args:
        subsets: by name.
        key: what the mix is cached under.
        seed: what it was drawn with.
        kept_out: number of rows of each set that no row of the mix may touch.
    """
    shared_rows: dict[str, dict[str, int]] = {}
    shared_audio: dict[str, dict[str, int]] = {}
    for name, subset in subsets.items():
        shared_rows[name] = {}
        shared_audio[name] = {}
        for other in subsets:
            num_rows, num_stretches = subset.shared(subsets[other])
            shared_rows[name][other] = num_rows
            shared_audio[name][other] = num_stretches

    return {
        "key": key,
        "seed": seed,
        "kept_out": dict(kept_out),
        "subsets": {name: subset.to_json() for name, subset in subsets.items()},
        "overlap": {"rows": shared_rows, "audio": shared_audio},
    }


def short_text(summary: Mapping[str, Any], folder: str) -> str:
    """One line per subset, for the log."""
    lines = [f"RL training mix in {folder}:"]
    for name, subset in summary["subsets"].items():
        removed = sum(subset["removed"].values())
        lines.append(
            f"  {name} (share {_share(subset['share'])}): "
            f"{subset['kept']:,} of {subset['seen']:,} rows, {subset['hours']:.2f} h; "
            f"removed by rules {removed:,}, "
            f"refused as evaluation audio {subset['refused']:,}{_shortfall(subset)}"
        )
    return "\n".join(lines)


def _shortfall(subset: Mapping[str, Any]) -> str:
    wanted = subset["wanted"]
    if wanted is None or subset["kept"] >= wanted:
        return ""
    return f"; {wanted:,} rows were asked for"


def _share(share: Share | Mapping[str, float]) -> str:
    if isinstance(share, Mapping):
        return ", ".join(f"{value:g} from step {step}" for step, value in share.items())
    return f"{share:g}"


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as a page: a table, then each subset's lengths, rules and refusals, then the overlap."""
    subsets = summary["subsets"]
    kept_out = [f"{name} ({rows:,} rows)" for name, rows in summary["kept_out"].items()]
    lines = [
        "# RL training mix",
        "",
        f"Key `{summary['key']}`, seed {summary['seed']}. Kept out by audio content: {', '.join(kept_out) or 'none'}.",
        "",
        "| subset | share | rule | seen | removed | refused | kept | hours |",
        "|---|---|---|---|---|---|---|---|",
    ]

    for name, subset in subsets.items():
        cells = (
            name,
            _share(subset["share"]),
            subset["builder"],
            f"{subset['seen']:,}",
            f"{sum(subset['removed'].values()):,}",
            f"{subset['refused']:,}",
            f"{subset['kept']:,}{_shortfall(subset)}",
            f"{subset['hours']:.3f}",
        )
        lines.append(_table_row(cells))

    for name, subset in subsets.items():
        lines += ["", f"## {name}", "", *_details(subset)]

    overlap = summary["overlap"]
    lines += _overlap_table("Source rows that two subsets share", subsets, overlap["rows"])
    lines += _overlap_table("Stretches of audio they share", subsets, overlap["audio"])
    return "\n".join(lines) + "\n"


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _overlap_table(
    title: str,
    names: Collection[str],
    shared: Mapping[str, Mapping[str, int]],
) -> list[str]:
    """A row and a column per subset."""
    lines = ["", f"## {title}", "", f"| {_table_row(names)}", "|---" * (len(names) + 1) + "|"]
    for name, counts in shared.items():
        lines.append(_table_row([name, *(f"{counts[other]:,}" for other in names)]))
    return lines


def _details(subset: Mapping[str, Any]) -> list[str]:
    """The histogram of lengths, then what was removed and refused."""
    most = max(subset["lengths"].values())
    lines = ["```"]
    for bar, count in subset["lengths"].items():
        if count:
            width = max(1, round(_BAR_WIDTH * count / most))
            lines.append(f"{bar:>10} {'#' * width} {count:,}")
    lines.append("```")

    if subset["removed"]:
        lines.append("")
        for rule, count in subset["removed"].items():
            lines.append(f"- removed {count:,}: {rule}")

    if subset["refused"]:
        named = subset["refused_first"]
        lines += ["", *(f"- refused: {one}" for one in named)]
        num_more = subset["refused"] - len(named)
        if num_more > 0:
            lines.append(f"- refused: {num_more:,} more")
    return lines
