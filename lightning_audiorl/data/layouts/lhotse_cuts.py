"""Lhotse: cuts, a shar folder, or recordings with supervisions. Its files are read here, and its library is not needed.

That is on purpose. Lhotse 1.33 hands out what a manifest claims too much, up to half a second, as the end of the file
played backwards, and writes opus shards at another rate than their cuts say. Here rate and length of each recording
are compared with its file before a row is taken.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import (
    Found,
    Layout,
    file_named,
    refused,
    sound_of,
)
from lightning_audiorl.data.layouts.tar import members
from lightning_audiorl.data.manifest.json_lines import JsonLineError, read_object, show
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.sound.places import Place

#: Rounded times, and what a codec adds or drops at the ends: what lhotse allows, too.
TOLERANCE_S = 0.025
_ENDINGS = (".jsonl", ".jsonl.gz")


@dataclass
class Lhotse(Layout):
    """Cuts of lhotse.

    A row is a cut with one supervision, whose text, speaker and language it has; or, of recordings with supervisions,
    a supervision. Refused is what is not one stretch of one file of one channel: mixed, padded and multi-channel cuts,
    recordings with transforms, pipes and addresses on the net (write such cuts with ``CutSet.save_audios`` first).

    Args:
        source: a file of cuts (``cuts.jsonl.gz``); a shar folder (``cuts.000000.jsonl.gz``, ``recording.000000.tar``);
            or a folder with one ``*recordings*.jsonl.gz`` and one ``*supervisions*.jsonl.gz``.
    """

    source: str

    def inputs(self) -> list[Path]:
        path = Path(self.source).expanduser().absolute()
        if path.is_file():
            return [path]

        shards = _listed(self.folder, "cuts.*")
        if shards:
            return [file for cuts in shards for file in (cuts, *self._recordings(cuts))]
        cuts = _listed(self.folder, "*cuts*")
        if len(cuts) == 1:
            return cuts

        recordings = _listed(self.folder, "*recordings*")
        supervisions = _listed(self.folder, "*supervisions*")
        if len(recordings) != 1 or len(supervisions) != 1:
            raise FileNotFoundError(
                f"{self.folder}: expected cuts.*.jsonl.gz with recording.*.tar (shar), or one *cuts*.jsonl.gz, or one "
                f"*recordings* and one *supervisions*; got {len(cuts)}, {len(recordings)} and {len(supervisions)}; "
                "name one file of cuts"
            )
        return [*recordings, *supervisions]

    def rows(self) -> Iterator[Found | ManifestError]:
        inputs = self.inputs()
        if len(inputs) == 2 and "supervisions" in inputs[1].name:
            yield from _rows_of_supervisions(*inputs)
            return
        for path in inputs:
            if path.suffix != ".tar":
                yield from _rows_of_cuts(path, self._recordings(path))

    def _recordings(self, cuts: Path) -> list[Path]:
        """The shard of audio beside a shard of cuts."""
        number = cuts.name.removeprefix("cuts").partition(".jsonl")[0]
        tar = cuts.with_name(f"recording{number}.tar")
        return [tar] if cuts.name.startswith("cuts.") and tar.is_file() else []


def _listed(folder: Path, pattern: str) -> list[Path]:
    found = [path for ending in _ENDINGS for path in folder.glob(pattern + ending)]
    # cuts.jsonl.gz fits cuts.* with nothing in the place of the number.
    return sorted(path for path in found if path.name not in ("cuts.jsonl", "cuts.jsonl.gz"))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any] | ManifestError]]:
    """The lines of a manifest of lhotse, with "cuts.jsonl.gz, line 3"."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path.name}, line {number}"
                if not line.strip():
                    continue
                try:
                    yield where, _read(line, where)
                except ManifestError as error:
                    yield where, error
    except (gzip.BadGzipFile, EOFError) as error:
        problem = f"is damaged ({error}); write it again"
        raise ManifestError(str(path), "(whole file)", problem, "damaged") from error


def _read(line: bytes, where: str) -> dict[str, Any]:
    """The fields of a line; ManifestError with its place where it has none."""
    try:
        return read_object(line)
    except JsonLineError as error:
        raise refused(where, error.field, error.problem, "bad JSON") from error


def _id(fields: dict[str, Any], where: str) -> str:
    """The id of a cut or a supervision."""
    value = fields.get("id")
    if value is None:
        raise refused(where, "id", "is missing; every row needs it", "missing id")
    if not isinstance(value, str):
        problem = f"expected a string, got {show(value)}; put it in quotes"
        raise refused(where, "id", problem, "type of id")
    return value


def _rows_of_cuts(path: Path, tars: list[Path]) -> Iterator[Found | ManifestError]:
    audio = {name: held for tar in tars for name, held in _audio_of_shard(tar)}
    for where, cut in _objects(path):
        try:
            if isinstance(cut, ManifestError):
                raise cut
            yield _row_of_cut(cut, where, path.parent, audio)
        except ManifestError as error:
            yield error


#: What a shard holds of a cut: address of the audio, place of the recording's line, the line.
_Held = tuple[str, str, bytes]


def _audio_of_shard(tar: Path) -> Iterator[tuple[str, _Held]]:
    """What a shard holds, by the cut's id."""
    size = tar.stat().st_size
    audio: tuple[str, str] | None = None
    with tar.open("rb") as file:
        for member in members(tar):
            key, _, ending = member.name.rpartition(".")
            if ending in ("nodata", "nometa"):
                continue
            if ending != "json":
                audio = (key, Place(str(tar), member.name, member.first, member.size, size).address)
            elif audio is not None and audio[0] == key:
                file.seek(member.first)
                place = f"{tar.name}, member {member.name}"
                yield key, (audio[1], place, file.read(member.size))


def _row_of_cut(cut: dict[str, Any], where: str, folder: Path, audio: dict[str, _Held]) -> Found:
    kind = cut.get("type")
    if kind != "MonoCut":
        problem = f"a {kind} is not one stretch of one file; write it with CutSet.save_audios, and take those cuts"
        raise refused(where, "type", problem, f"{kind}")

    cut_id = _id(cut, where)
    supervisions = cut.get("supervisions") or []
    if not isinstance(supervisions, list):
        raise refused(where, "supervisions", "expected a list of objects", "type of supervisions")
    if len(supervisions) != 1:
        problem = f"has {len(supervisions)} supervisions; cut it with CutSet.trim_to_supervisions"
        raise refused(where, "supervisions", problem, f"{len(supervisions)} supervisions")

    recording = _object(cut, "recording", where)
    address = None
    if cut_id in audio:
        # What lies in the shard was cut, and may be of another rate, than the cut's own entry says.
        address, place, line = audio[cut_id]
        recording = _read(line, place)
    stretch = _stretch(recording, cut, where, folder, address)
    return Found(where, {"id": cut_id, **stretch, **_said(supervisions[0], where)}, sure=True)


def _rows_of_supervisions(recordings: Path, supervisions: Path) -> Iterator[Found | ManifestError]:
    known: dict[str, dict[str, Any]] = {}
    for _, recording in _objects(recordings):
        if isinstance(recording, ManifestError):
            raise recording
        known[recording.get("id", "")] = recording

    for where, supervision in _objects(supervisions):
        try:
            if isinstance(supervision, ManifestError):
                raise supervision
            name = supervision.get("recording_id", "")
            if name not in known:
                problem = f"{name!r} is not in {recordings.name}; add it, or remove the supervision"
                raise refused(where, "recording_id", problem, "no recording")
            stretch = _stretch(known[name], supervision, where, recordings.parent, None)
            said = _said(supervision, where)
            yield Found(where, {"id": _id(supervision, where), **stretch, **said}, sure=True)
        except ManifestError as error:
            yield error


def _said(supervision: dict[str, Any], where: str) -> dict[str, Any]:
    """Text, speaker and language."""
    if not isinstance(supervision, dict):
        raise refused(where, "supervisions", "expected a list of objects", "type of supervisions")
    said: dict[str, Any] = {"text": supervision.get("text") or ""}
    for ours, theirs in (("speaker", "speaker"), ("lang", "language")):
        if supervision.get(theirs):
            said[ours] = supervision[theirs]
    return said


def _stretch(
    recording: dict[str, Any], cut: dict[str, Any], where: str, folder: Path, address: str | None
) -> dict[str, Any]:
    """File, offset and duration of a cut or a supervision, compared with what the file holds."""
    path = address or _file(recording, where, folder)
    if recording.get("transforms"):
        problem = "the recording has transforms, which are lhotse's to make; write it with CutSet.save_audios"
        raise refused(where, "recording.transforms", problem, "transforms")

    sound = sound_of(path, where)
    if sound.channels != 1:
        problem = f"{path} has {sound.channels} channels, and a cut is of one; write the channel as a file"
        raise refused(where, "channel", problem, "several channels")
    rate_hz = _number(recording, "sampling_rate", where)
    if rate_hz != sound.rate_hz:
        problem = (
            f"claims {rate_hz:g} Hz, and {path} has {sound.rate_hz} Hz; make the recording again"
        )
        raise refused(where, "recording.sampling_rate", problem, "another rate")

    claimed_s = _number(recording, "num_samples", where) / rate_hz
    if abs(claimed_s - sound.length_s) > TOLERANCE_S:
        problem = (
            f"claims {claimed_s:.3f} s, and {path} has {sound.length_s:.3f} s; make the recording again, or restore "
            "the file"
        )
        raise refused(where, "recording.num_samples", problem, "another length")

    start_s = _number(cut, "start", where)
    duration_s = _number(cut, "duration", where)
    if start_s < 0 or start_s + duration_s > sound.length_s + TOLERANCE_S:
        problem = (
            f"goes from {start_s:.3f} to {start_s + duration_s:.3f} s, and {path} ends at {sound.length_s:.3f} s; "
            "correct the times"
        )
        raise refused(where, "duration", problem, "longer than its file")
    return {"audio_filepath": path, "offset": start_s, "duration": duration_s}


def _file(recording: dict[str, Any], where: str, folder: Path) -> str:
    """The one file of a recording."""
    sources = recording.get("sources")
    is_list = isinstance(sources, list) and all(isinstance(source, dict) for source in sources)
    if not is_list or len(sources or []) != 1:
        problem = "expected one source; write the recording as one file"
        raise refused(where, "recording.sources", problem, "several files")
    (source,) = sources or []
    kind = source.get("type")
    if kind == "shar":
        problem = "its audio lies in a shard that is not here; give the shar folder with its recording.*.tar"
        raise refused(where, "recording.sources", problem, "no shard")
    if kind != "file" or not isinstance(source.get("source"), str):
        problem = f"a source of type {kind} cannot be read from the middle on; write it as a file"
        raise refused(where, "recording.sources", problem, f"source {kind}")
    return file_named(source["source"], folder)


def _object(fields: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        problem = "is missing; cuts of features alone have no audio"
        raise refused(where, name, problem, f"no {name}")
    return value


def _number(fields: dict[str, Any], name: str, where: str) -> float:
    value = fields.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(float(value or 0)):
        raise refused(where, name, f"expected a number, got {value!r}", f"type of {name}")
    return float(value or 0)
