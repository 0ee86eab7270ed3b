"""Data sets of Hugging Face's ``datasets``: its Arrow files are read in place, clip by clip, without decoding."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import Found, Layout, file_named, refused
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.sound.places import Place

_TEXTS = ("text", "sentence", "transcription", "transcript", "normalized_text")
_SPEAKERS = ("speaker", "speaker_id", "client_id")
_LANGUAGES = ("lang", "language", "locale")
_IDS = ("id", "utterance_id", "segment_id")


@dataclass
class HuggingFace(Layout):
    """A data set with a column of audio, from a folder or the hub.

    Needs the extra ``datasets``. Clips are read by soundfile out of the Arrow files, so neither torchcodec nor FFmpeg
    is needed, and rows are drawn at random as from files. Where a clip is a path the file is read.

    Args:
        source: a folder that ``save_to_disk`` wrote, a folder of Parquet files, or a hub id.
        split: such as train; none: the only one there is.
        name: configuration of a set of the hub, such as a language.
        audio: the column of audio; none: the only one there is.
        text: the column of text; none: the first of text, sentence, transcription, transcript, normalized_text.
        speaker: the column of the speaker; none: the first of speaker, speaker_id, client_id, where there is one.
        row_id: the column of the id; none: id, utterance_id or segment_id, else ``<split>-<number>``.
    """

    source: str
    split: str | None = None
    name: str | None = None
    audio: str | None = None
    text: str | None = None
    speaker: str | None = None
    row_id: str | None = None

    def inputs(self) -> list[Path]:
        data = self._data()
        return [Path(file["filename"]) for file in data.cache_files]

    def rows(self) -> Iterator[Found | ManifestError]:
        data = self._data()
        audio = self._audio_column(data)
        columns = self._columns(data)
        kept = data.remove_columns([audio])
        addresses = _addresses(data, audio)
        for number in range(len(data)):
            where = f"{self.source}, row {number}"
            found = addresses(number)
            if isinstance(found, str):
                yield refused(where, audio, found, "no audio")
                continue

            fields = _plain(kept[number])
            named = {ours: fields.pop(theirs) for ours, theirs in columns.items()}
            row_id = named.pop("id", None)
            if row_id is None:
                row_id = f"{data.split or 'row'}-{number:08d}"
            # Classes and speakers are numbers in some sets.
            for field in ("speaker", "lang"):
                if named.get(field) is not None:
                    named[field] = str(named[field])

            given = {field: value for field, value in named.items() if value is not None}
            others = {field: value for field, value in fields.items() if value is not None}
            fields = {**others, "id": str(row_id), **given, "audio_filepath": found[0]}
            # Lengths of theirs are of other units or other audio.
            for field in ("duration", "offset", "segments"):
                fields.pop(field, None)
            yield Found(where, fields)

    def _data(self) -> Any:
        """The data set, with its column of audio as bytes."""
        datasets = _datasets()
        path = Path(self.source).expanduser()
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            data = datasets.load_from_disk(str(path))
        else:
            data = self._loaded(str(path.absolute()) if path.is_dir() else self.source)
        if isinstance(data, dict):
            data = self._split_of(data)
        elif self.split is not None and str(data.split) != self.split:
            raise ValueError(f"{self.source}: holds the split {data.split}, not {self.split!r}")

        column = self._audio_column(data)
        if isinstance(data.features[column], datasets.Audio):
            data = data.cast_column(column, datasets.Audio(decode=False))
        return data

    def _loaded(self, source: str) -> Any:
        """The set as ``datasets`` makes it of Parquet files, or fetches it."""
        datasets = _datasets()
        try:
            return datasets.load_dataset(source, self.name)
        except (ImportError, datasets.exceptions.DatasetGenerationError) as error:
            cause = error if isinstance(error, ImportError) else error.__cause__
            if "torchcodec" not in str(cause):
                raise
            raise ValueError(
                f"{source}: `datasets` wants torchcodec to make a set of audio files; take them as they are, with "
                "`audiorl manifest --kind folder`"
            ) from error

    def _split_of(self, data: Any) -> Any:
        names = ", ".join(data)
        if self.split is None and len(data) == 1:
            return next(iter(data.values()))
        if self.split not in data:
            given = "is needed" if self.split is None else f"{self.split!r} is not there"
            raise ValueError(f"{self.source}: split {given}; give one of {names}")
        return data[self.split]

    def _audio_column(self, data: Any) -> str:
        datasets = _datasets()
        columns = data.features
        if self.audio is not None:
            if self.audio not in columns:
                raise self._no_column("audio", self.audio, columns)
            return self.audio

        found = [name for name, kind in columns.items() if isinstance(kind, datasets.Audio)]
        if len(found) != 1:
            listed = ", ".join(columns)
            raise ManifestError(
                self.source,
                "audio",
                f"{len(found)} columns of audio among {listed}; name one with audio",
                "missing column",
            )
        return found[0]

    def _columns(self, data: Any) -> dict[str, str]:
        """The columns of text, speaker, language and id, by our names."""
        columns: dict[str, str] = {}
        wanted = {
            "text": (self.text, _TEXTS),
            "speaker": (self.speaker, _SPEAKERS),
            "lang": (None, _LANGUAGES),
            "id": (self.row_id, _IDS),
        }

        for ours, (given, usual) in wanted.items():
            found = next((name for name in usual if name in data.features), None)
            if given is not None:
                if given not in data.features:
                    raise self._no_column(ours, given, data.features)
                found = given
            if found is not None:
                columns[ours] = found

        if "text" not in columns:
            raise self._no_column("text", " or ".join(_TEXTS), data.features)
        return columns

    def _no_column(self, what: str, name: str, columns: Any) -> ManifestError:
        problem = f"no column {name} among {', '.join(columns)}; name it with {what}"
        return ManifestError(self.source, what, problem, "missing column")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "data sets of Hugging Face need the extra `datasets`: pip install 'lightning-audiorl[datasets]'"
        ) from error
    return datasets


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that JSON can hold."""
    return {
        name: value
        for name, value in fields.items()
        if value is None or isinstance(value, str | int | float | bool | list | dict)
    }


def _addresses(data: Any, column: str) -> Any:
    """A function from a row's number to the address of its audio and its size, or to what is wrong with it."""
    tables = _tables(data, column)
    ends: list[int] = []
    for _, array, _ in tables:
        ends.append((ends[-1] if ends else 0) + len(array))

    def address(number: int) -> tuple[str] | str:
        place = bisect_right(ends, number)
        start = ends[place - 1] if place else 0
        file, array, base = tables[place]
        return _address(file, array, number - start, base)

    return address


def _tables(data: Any, column: str) -> list[tuple[Path, Any, int]]:
    """Each chunk of the column, as its file has it: the file, the chunk, and the file's place in memory."""
    import pyarrow

    files = [Path(file["filename"]) for file in data.cache_files]
    chunks: list[tuple[Path, Any, int]] = []
    for file in files:
        mapped = pyarrow.memory_map(str(file))
        base = mapped.read_buffer(mapped.size()).address
        mapped.seek(0)
        table = pyarrow.ipc.open_stream(mapped).read_all()
        if column in table.column_names:
            chunks += [(file, chunk, base) for chunk in table.column(column).chunks]

    num_rows = sum(len(chunk) for _, chunk, _ in chunks)
    if num_rows != len(data) or data._indices is not None:
        raise ValueError(
            f"{', '.join(map(str, files[:3])) or 'in memory'}: the data set is a part of its files (filtered, "
            "shuffled or sliced); write it with save_to_disk, and give that folder"
        )
    return chunks


def _address(file: Path, array: Any, number: int, base: int) -> tuple[str] | str:
    """Where the bytes of one clip lie in the Arrow file, or the file that it names."""
    import pyarrow

    names = [field.name for field in array.type] if pyarrow.types.is_struct(array.type) else []
    if "bytes" not in names:
        return "is no column of audio: expected bytes and path"
    name = array.field("path")[number].as_py() if "path" in names else None
    held = array.field("bytes")
    if not array[number].is_valid or not held[number].is_valid:
        if not name:
            return "neither bytes nor a path; remove the row"
        return (file_named(name, file.parent),)

    first, num_bytes = _stretch(held, number)
    size = file.stat().st_size
    if not 0 <= first - base <= size - num_bytes:
        return "lies in a compressed Arrow file; write the set with save_to_disk"
    inside = Path(name or f"row{number}").name
    return (Place(str(file), inside, first - base, num_bytes, size).address,)


def _stretch(held: Any, number: int) -> tuple[int, int]:
    """Where the bytes of an entry lie in memory, and how many there are."""
    import pyarrow

    is_large = pyarrow.types.is_large_binary(held.type) or pyarrow.types.is_large_string(held.type)
    _, offsets, data = held.buffers()
    # Offsets are of the whole buffer, of which a chunk may be a part.
    ends = memoryview(offsets).cast("q" if is_large else "i")
    at = held.offset + number
    return data.address + ends[at], ends[at + 1] - ends[at]
