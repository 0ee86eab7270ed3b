"""Audio that is a stretch of a larger file: the same samples, length and content hash as in a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_audiorl.data import AudioError, read_audio
from lightning_audiorl.data.audio.content_hash import ContentHashes
from lightning_audiorl.data.manifest.schema import ManifestError, parse_row
from lightning_audiorl.data.sound import SoundReader
from lightning_audiorl.data.sound.places import Place, absolute, place_of
from lightning_audiorl.types import Segment, Utterance
from tests.data.audio_files import Kind, kinds, write
from tests.data.fakes import write_tone


def inside(path: Path, box: Path, before: int = 1000, behind: int = 700) -> str:
    """The address of a copy of a file, with other bytes around it."""
    data = path.read_bytes()
    rubbish = bytes(range(256)) * 8
    box.write_bytes(rubbish[:before] + data + rubbish[:behind])
    place = Place(str(box), path.name, before, len(data), before + len(data) + behind)
    return place.address


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_a_clip_inside_a_file_is_the_clip(kind: Kind, tmp_path: Path) -> None:
    path = write(tmp_path, kind)
    address = inside(path, tmp_path / "box.bin")
    with SoundReader(str(path)) as alone, SoundReader(address) as boxed:
        assert (boxed.rate_hz, boxed.channels) == (alone.rate_hz, alone.channels)
        assert boxed.num_frames == alone.num_frames
        assert np.array_equal(boxed.read(0, None), alone.read(0, None))
    with SoundReader(str(path)) as alone, SoundReader(address) as boxed:
        assert np.array_equal(boxed.read(9000, 5000), alone.read(9000, 5000))


def test_its_content_hash_is_that_of_the_clip(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    address = inside(tmp_path / "a.wav", tmp_path / "box.tar")
    with ContentHashes(tmp_path / "hashes.sqlite") as hashes:
        assert hashes.file(address) == hashes.file(str(tmp_path / "a.wav"))
        cut = Segment(str(tmp_path / "a.wav"), 0.2, 0.1)
        boxed = Segment(address, 0.2, 0.1)
        assert hashes.stretch(cut)[1:] == hashes.stretch(boxed)[1:]


def test_a_row_of_a_manifest_may_name_it(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    address = inside(tmp_path / "a.wav", tmp_path / "box.tar")
    relative = address.replace(str(tmp_path) + "/", "")
    line = json.dumps({"audio_filepath": relative, "text": "one"}).encode()
    row = parse_row(line, "m.jsonl, line 1", str(tmp_path), "m:1", False, True)
    assert row.segments[0].audio_filepath == address == absolute(address)
    assert row.duration_s == 0.5
    plain = Utterance("m:1", (Segment(str(tmp_path / "a.wav")),), "one", 0.5)
    assert read_audio(row, 16000).equal(read_audio(plain, 16000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("&of=", "&off="), "expected inside:<file>.*make the manifest again"),
        (("first=1000", "first=-1"), "expected inside:<file>"),
        (("first=1000", "first=9000000"), "ends behind"),
        (("box.tar", "bax.tar"), "no such file: .*bax.tar"),
    ],
)
def test_a_bad_address_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    address = inside(tmp_path / "a.wav", tmp_path / "box.tar").replace(*change)
    line = json.dumps({"audio_filepath": address, "text": "one"}).encode()
    with pytest.raises(ManifestError, match=message) as caught:
        parse_row(line, "m.jsonl, line 3", str(tmp_path), "m:1", False, True)
    assert str(caught.value).startswith("m.jsonl, line 3, field `audio_filepath`: ")


def test_a_file_that_changed_is_not_read_as_if_it_had_not(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    address = inside(tmp_path / "a.wav", tmp_path / "box.tar")
    with (tmp_path / "box.tar").open("ab") as file:
        file.write(b"more")
    row = Utterance("a", (Segment(address),), "one", 0.5)
    with pytest.raises(AudioError, match=r"row 'a': .*bytes now.*make the manifest again"):
        read_audio(row, 16000)


def test_what_is_no_audio_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("<html>not found</html>")
    address = inside(tmp_path / "a.wav", tmp_path / "box.tar")
    with pytest.raises(AudioError, match=r"box.tar\?name=a.wav.*web page"):
        SoundReader(address)


def test_names_are_kept_whole() -> None:
    place = Place("/x/a?b&c=.tar", "d/ü &=?.wav", 1, 2, 3)
    assert place_of(place.address) == place
