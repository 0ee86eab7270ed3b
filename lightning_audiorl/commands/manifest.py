"""``audiorl manifest``: a manifest of a data set that was written for another tool."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lightning_audiorl.data.audio.reading import read_segment
from lightning_audiorl.data.layouts import LAYOUTS
from lightning_audiorl.data.layouts.base import Checked, Layout, options_of, sound_of
from lightning_audiorl.data.layouts.biasing import Biased
from lightning_audiorl.data.layouts.summary import RowSummary
from lightning_audiorl.data.manifest.files import write_manifest
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.mix.selection import Candidate
from lightning_audiorl.data.mix.selection.by_speech_activity import SpeechHeard
from lightning_audiorl.data.sound import AudioError
from lightning_audiorl.types import Utterance

_PROGRESS_EVERY_S = 5.0


def manifest(
    source: str,
    kind: str,
    out: str,
    split: str | None = None,
    text: str | None = None,
    audio: str | None = None,
    name: str | None = None,
    shard_manifest: str | None = None,
    lang: str | None = None,
    allow_empty_text: bool = False,
    on_bad_row: Literal["error", "skip"] = "error",
    check: bool = False,
    check_speech: bool = False,
    overwrite: bool = False,
    biasing: str | None = None,
    hotwords: bool = True,
) -> None:
    """Write a manifest of a data set in another layout, and say what it holds. The audio stays where it is.

    Args:
        source: the folder or file of the data set; of hf also a hub id, of tar also a pattern or range of shards.
        kind: folder, ljspeech, commonvoice, librispeech, aishell, fleurs, kaldi, lhotse, hf or tar; of texts to be
            spoken seedtts or cv3eval.
        out: the manifest to write.
        split: the part of the data set: commonvoice, librispeech, aishell, fleurs, hf.
        text: where the text stands: a column (folder, hf), normalised or raw (ljspeech, fleurs), a field (tar).
        audio: the column of audio (hf).
        name: the configuration (hf).
        shard_manifest: NeMo's manifest of the shards (tar).
        lang: language of rows that name none; none is "en".
        allow_empty_text: take rows in which nothing is said.
        on_bad_row: error stops at the first row that cannot be used; skip leaves it out and counts it.
        check: read the audio of every row once.
        check_speech: hear the audio of every row once, too: a row without words in which speech is heard, or one with
            words in which none is, cannot be used. Wants the extra ``vad``.
        overwrite: write over a manifest that is there.
        biasing: file of biasing lists in the layout of LibriSpeech's: the words that are rare in each row become its
            ``keywords``, the list around them its ``hotwords``.
        hotwords: False leaves out the second list: for a model that is not told any words.

    Raises:
        FileExistsError: ``out`` is there.
        ImportError: ``check_speech`` without the extra ``vad``.
        ManifestError: a row that cannot be used, naming file, line or member, and field.
        ValueError: an option that the kind does not have.
    """
    options = {
        "split": split,
        "text": text,
        "audio": audio,
        "name": name,
        "manifest": shard_manifest,
    }
    layout = _layout(
        kind, source, {key: value for key, value in options.items() if value is not None}
    )
    if biasing is not None:
        layout = Biased(layout, biasing, hotwords)
    path = Path(out).expanduser()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already; give --overwrite true, or another name")
    path.parent.mkdir(parents=True, exist_ok=True)

    checks: list[Callable[[Utterance], ManifestError | None]] = []
    if check:
        checks.append(_unreadable)
    if check_speech:
        rule = SpeechHeard()
        checks.append(lambda row: _misheard(row, rule))
    checked = Checked(layout, lang, allow_empty_text, on_bad_row, checks)
    summary = RowSummary()
    # Whole or not at all.
    own = path.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        write_manifest(_watched(checked, summary), own)
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
    print(f"wrote {out}\n{summary.text(checked.skipped)}")
    if isinstance(layout, Biased) and layout.num_unused:
        print(f"{layout.num_unused:,} lines of {biasing} are of no row")


def _layout(kind: str, source: str, options: dict[str, str]) -> Layout:
    """The layout of a kind.

    Raises:
        ValueError: no such kind, or an option that it does not have.
    """
    if kind not in LAYOUTS:
        raise ValueError(f"manifest: --kind {kind}: expected one of {', '.join(LAYOUTS)}")
    known = options_of(LAYOUTS[kind])
    for name in options:
        if name not in known:
            given = "shard_manifest" if name == "manifest" else name
            others = ", ".join(known) or "none"
            raise ValueError(f"manifest: {kind} takes no --{given}; options of its own: {others}")
    return LAYOUTS[kind](source, **options)  # type: ignore[call-arg]


def _watched(checked: Checked, summary: RowSummary) -> Iterator[Utterance]:
    """The rows on their way into the manifest: counted, and a word now and then."""
    next_word_s = time.monotonic() + _PROGRESS_EVERY_S
    for number, row in enumerate(checked.rows(), start=1):
        if time.monotonic() >= next_word_s:
            next_word_s = time.monotonic() + _PROGRESS_EVERY_S
            print(f"{number:,} rows, {summary.hours:.1f} hours", file=sys.stderr, flush=True)
        summary.add(row)
        yield row


def _where(row: Utterance) -> str:
    return row.origin.where if row.origin else row.id


def _unreadable(row: Utterance) -> ManifestError | None:
    """What is wrong with the audio of a row, once it is read."""
    where = _where(row)
    for segment in row.segments:
        try:
            sound = sound_of(segment.audio_filepath, where)
            # At its own rate: nothing is resampled for a look.
            read_segment(segment, sound.rate_hz)
        except ManifestError as error:
            return error
        except AudioError as error:
            return ManifestError(where, "audio_filepath", str(error), "bad audio")
    return None


def _misheard(row: Utterance, rule: SpeechHeard) -> ManifestError | None:
    """What is wrong with a row's text, once its audio is heard."""
    try:
        verdict = rule.judge(Candidate(0, row))
    except AudioError as error:
        return ManifestError(_where(row), "audio_filepath", str(error), "bad audio")
    if verdict.keep:
        return None
    text = f"the text is {row.text[:60]!r}" if row.text.strip() else "the text is empty"
    problem = f"{verdict.reason} ({text}); correct the text, or leave the row out"
    return ManifestError(_where(row), "text", problem, verdict.reason)
