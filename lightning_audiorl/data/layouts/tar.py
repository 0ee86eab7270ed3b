"""Tar shards of audio: NeMo's (with a manifest beside them) and WebDataset's (text and fields in the tar)."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.json_lines import JsonLineError, read_object
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.sound.foreign import AUDIO_ENDINGS
from lightning_audiorl.data.sound.places import Place

#: ``audio_{0..3}.tar``; NeMo also writes ``audio__OP_0..3_CL_.tar``.
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|_OP_(\d+)\.\.(\d+)_CL_")
#: What NeMo puts behind the name of a member of which several rows are cut.
_PIECE = re.compile(r"-sub\d+$")
_TEXT_ENDINGS = (".txt", ".text", ".transcript", ".lab")
#: Members with text are read whole; a text of more bytes is none.
_MOST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True)
class Member:
    """One file in a tar: its name, and where its bytes lie."""

    name: str
    first: int
    size: int


@dataclass
class Tar(Layout):
    """Tar shards, read in place.

    Args:
        source: a shard, a folder of shards, a pattern such as ``audio_*.tar``, or a range such as ``audio_{0..15}.tar``
            (NeMo's ``audio__OP_0..15_CL_.tar`` too).
        manifest: NeMo's manifest of the shards, or a range of such (``manifest_{0..15}.json``); its ``audio_filepath``
            is the name of a member. None: the shards are WebDataset's, with a member of text beside each of audio
            (``a.flac``, ``a.txt`` or ``a.json``).
        text: field of WebDataset's json that holds the text; none: ``text``.
    """

    source: str
    manifest: str | None = None
    text: str | None = None

    def inputs(self) -> list[Path]:
        manifests = [] if self.manifest is None else expanded(self.manifest, ".json")
        return expanded(self.source, ".tar") + manifests

    def rows(self) -> Iterator[Found | ManifestError]:
        if self.manifest is not None:
            yield from self._rows_of_manifest(self.manifest)
            return
        for shard in expanded(self.source, ".tar"):
            yield from self._rows_of_shard(shard)

    def _rows_of_manifest(self, manifest: str) -> Iterator[Found | ManifestError]:
        """NeMo's rows."""
        # By name; NeMo numbers its shards where two of them have a member of one name.
        places: dict[str, list[tuple[str, str]]] = {}
        for shard in expanded(self.source, ".tar"):
            size = shard.stat().st_size
            for member in members(shard):
                address = Place(str(shard), member.name, member.first, member.size, size).address
                places.setdefault(member.name, []).append((_number(shard), address))

        for path in expanded(manifest, ".json"):
            for where, line in text_lines(path, path.parent):
                if isinstance(line, ManifestError):
                    yield line
                else:
                    yield _row_of_line(line, where, places)

    def _rows_of_shard(self, shard: Path) -> Iterator[Found | ManifestError]:
        """WebDataset's rows: members of one key stand together."""
        size = shard.stat().st_size
        group: list[Member] = []
        for member in [*members(shard), None]:
            if group and (member is None or _key(member.name) != _key(group[0].name)):
                yield self._row_of_group(group, shard, size)
                group = []
            if member is not None:
                group.append(member)

    def _row_of_group(self, group: list[Member], shard: Path, size: int) -> Found | ManifestError:
        key = _key(group[0].name)
        where = f"{shard.name}, member {key}"
        by_ending = {_ending(member.name): member for member in group}
        audio = [member for ending, member in by_ending.items() if ending in AUDIO_ENDINGS]
        if len(by_ending) < len(group) or len(audio) != 1:
            names = ", ".join(member.name for member in group)
            problem = f"expected one member of audio, got {names}; write each sample under a key of its own"
            return refused(where, "audio_filepath", problem, "members of a key")

        try:
            fields = self._texts(by_ending, shard, where)
        except ManifestError as error:
            return error
        member = audio[0]
        address = Place(str(shard), member.name, member.first, member.size, size).address
        return Found(where, {"id": key, **fields, "audio_filepath": address})

    def _texts(self, by_ending: dict[str, Member], shard: Path, where: str) -> dict[str, Any]:
        """The fields of a json beside the audio, and the text."""
        fields: dict[str, Any] = {}
        if ".json" in by_ending:
            try:
                fields = read_object(_bytes(shard, by_ending[".json"], where))
            except JsonLineError as error:
                raise refused(f"{where}.json", error.field, error.problem, "bad JSON") from error
        # Of the clip that it was cut from: here the member is the whole clip.
        fields = {
            name: value for name, value in fields.items() if name not in ("offset", "duration")
        }

        name = next((ending for ending in _TEXT_ENDINGS if ending in by_ending), None)
        column = self.text or "text"

        if name is not None and self.text is None:
            try:
                text = _bytes(shard, by_ending[name], where).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                problem = f"{name} is not in UTF-8 ({error}); write it in UTF-8"
                raise refused(where, "text", problem, "not UTF-8") from error
            return {**fields, "text": " ".join(text.split())}

        if column not in fields:
            listed = ", ".join(by_ending)
            problem = (
                f"no text: of {listed} none is {' or '.join(_TEXT_ENDINGS)}, nor a json with `{column}`; "
                "name its field with text"
            )
            raise refused(where, "text", problem, "no text")
        return {**fields, "text": fields[column]}


def _row_of_line(
    line: str, where: str, places: dict[str, list[tuple[str, str]]]
) -> Found | ManifestError:
    """The row of a line of NeMo's manifest."""
    try:
        fields = read_object(line)
    except JsonLineError as error:
        return refused(where, error.field, error.problem, "bad JSON")
    name = fields.get("audio_filepath")
    if not isinstance(name, str) or not name:
        return refused(where, "audio_filepath", "is missing; it names a member", "missing file")

    path = Path(name)
    whole = str(path.with_name(_PIECE.sub("", path.stem) + path.suffix))
    found = places.get(name) or places.get(whole) or places.get(path.name) or []
    shard = fields.pop("shard_id", None)
    if len(found) > 1 and shard is not None:
        found = [place for place in found if place[0] == str(shard)]
    if len(found) != 1:
        problem = f"no shard has a member {name!r}; give all shards of this manifest"
        if found:
            problem = f"{len(found)} shards have a member {name!r}; write `shard_id` into the row"
        return refused(
            where, "audio_filepath", problem, "no member" if not found else "two members"
        )
    return Found(where, {"id": str(path.with_suffix("")), **fields, "audio_filepath": found[0][1]})


def members(shard: Path) -> Iterator[Member]:
    """The plain files of a tar, in their order; its headers are read once, and nothing of the files.

    Raises:
        ManifestError: it is no tar, a compressed one, or cut in the middle.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            size = shard.stat().st_size
            while (member := tar.next()) is not None:
                # What tarfile remembers of each would fill the memory.
                tar.members = []  # type: ignore[attr-defined]
                if not member.isreg() or member.issparse():
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                yield Member(member.name.removeprefix("./"), member.offset_data, member.size)
    except tarfile.TarError as error:
        problem = f"is no tar file, or damaged ({error}); write it again"
        with shard.open("rb") as file:
            head = file.read(4)
        if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\x28\xb5\x2f\xfd":
            problem = "is compressed, so that nothing can be read from its middle; unpack it to a plain tar"
        raise ManifestError(str(shard), "(whole file)", problem, "no tar") from error


def expanded(pattern: str, ending: str) -> list[Path]:
    """The files that a name, a folder, a pattern or a range stands for.

    Raises:
        FileNotFoundError: there is none, or one of a range is missing.

    Example:
        >>> expanded("shards/audio_{0..1}.tar", ".tar")
        Traceback (most recent call last):
        ...
        FileNotFoundError: .../shards/audio_0.tar: no such file
    """
    match = _RANGE.search(pattern)
    if match:
        low, high = (group for group in match.groups() if group is not None)
        # Zeros in front of the first number stand in front of all.
        numbers = [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
        paths: list[Path] = []
        for number in numbers:
            paths += expanded(pattern[: match.start()] + number + pattern[match.end() :], ending)
        return paths

    path = Path(pattern).expanduser().absolute()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(path.glob(f"*{ending}"))
    else:
        # From the folder that has no pattern in its name on.
        found = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
    if not found:
        kind = f"no {ending} file in it" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {kind}")
    return found


def _bytes(shard: Path, member: Member, where: str) -> bytes:
    if member.size > _MOST_TEXT_BYTES:
        problem = f"{member.name} has {member.size} bytes, too many for a text"
        raise refused(where, "text", problem, "no text")
    with shard.open("rb") as file:
        file.seek(member.first)
        return file.read(member.size)


def _key(name: str) -> str:
    """WebDataset's key: all up to the first dot of the file's name.

    Example:
        >>> _key("a.b/clip.1.wav")
        'a.b/clip'
    """
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2].lower()


def _number(shard: Path) -> str:
    """The last number in the name of a shard, which is its `shard_id`."""
    numbers = re.findall(r"\d+", shard.stem)
    return str(int(numbers[-1])) if numbers else ""
