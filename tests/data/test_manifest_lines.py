"""Kinds of manifest lines, of recognition and of synthesis: each is taken with its values, or refused by its field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl.data import IndexedManifest, ManifestError, ManifestRows, SpeechManifest
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import write_tone

WHOLE = "(whole line)"
GOOD = {"audio_filepath": "a.wav", "text": "one", "duration": 0.5}
SPOKEN = {"audio_filepath": "voice.wav", "prompt_text": "good morning", "text": "one two"}
SAID = "one two three four five six seven eight nine zero one two three four five six seven eight"


@dataclass(frozen=True)
class Kind:
    """A kind of line: what is written, and what is promised.

    ``refused`` is the field that the error names; of a line that is taken, ``has`` are values of the row.
    """

    name: str
    line: bytes
    refused: str = ""
    has: dict[str, Any] | None = None
    says: str = ""


def fields(good: dict[str, Any], **changes: Any) -> bytes:
    """A good line with other fields; None takes a field out, `...` makes it null."""
    changed = {**good, **changes}
    left = {key: value for key, value in changed.items() if value is not None}
    plain = {key: None if value is ... else value for key, value in left.items()}
    return json.dumps(plain).encode()


def asr(**changes: Any) -> bytes:
    return fields(GOOD, **changes)


def tts(**changes: Any) -> bytes:
    return fields(SPOKEN, **changes)


def raw(inside: str) -> bytes:
    """A good line of recognition, with text put into the object as it is."""
    start = json.dumps(GOOD)[:-1]
    return f"{start}, {inside}}}".encode()


def without(field: str, inside: str) -> bytes:
    start = json.dumps({key: value for key, value in GOOD.items() if key != field})[:-1]
    return f"{start}, {inside}}}".encode()


DEEP = "[" * 100_000 + "]" * 100_000

ASR_KINDS = [
    # taken
    Kind("plain", asr(), has={"text": "one", "duration_s": 0.5, "lang": "en"}),
    Kind("byte order mark", b"\xef\xbb\xbf" + asr(), has={"text": "one"}),
    Kind("windows line end", asr() + b"\r", has={"text": "one"}),
    Kind("spaces around", b"  " + asr() + b" \t", has={"text": "one"}),
    Kind("escaped emoji", without("text", r'"text": "\ud83d\ude00 one"'), has={"text": "😀 one"}),
    Kind("line separator in a text", asr(text="one\u2028two"), has={"text": "one\u2028two"}),
    Kind("unknown fields", asr(snr=7, room=["hall"]), has={"extra": {"snr": 7, "room": ["hall"]}}),
    Kind("an unknown NaN", raw('"snr": NaN'), has={}),
    Kind("an unknown long number", raw('"n": 1' + "0" * 400), has={"extra": {"n": 10**400}}),
    Kind("a large object", raw('"x": [' + "[1], " * 500 + "[2]]"), has={"text": "one"}),
    Kind("a long text", asr(text="one " * 100_000), has={"text": "one " * 100_000}),
    Kind("sixty deep", raw('"x": ' + "[" * 60 + "]" * 60), has={"text": "one"}),
    Kind("no duration", asr(duration=None), has={"duration_s": 0.5}),
    Kind("a null duration", asr(duration=...), has={"duration_s": 0.5}),
    Kind("a whole duration", asr(duration=1), has={"duration_s": 1.0}),
    Kind("an offset", asr(offset=0.2, duration=0.1), has={"duration_s": 0.1}),
    Kind("minus zero offset", asr(offset=-0.0), has={"duration_s": 0.5}),
    Kind("numbers of a speaker", asr(speaker_id=12, chapter=3), has={"speaker": ""}),
    Kind("where a clip was cut", asr(start=3.5, end=4.0), has={"duration_s": 0.5}),
    Kind("a lang beside a language", asr(lang="de", language="German"), has={"lang": "de"}),
    Kind(
        "segments",
        asr(
            audio_filepath=None,
            duration=None,
            segments=[{"audio_filepath": "a.wav", "duration": 0.5}] * 2,
        ),
        has={"duration_s": 1.0},
    ),
    # no object
    Kind("an array", b'["a.wav", "one"]', WHOLE, says="expected an object"),
    Kind("a string", b'"one"', WHOLE, says="expected an object"),
    Kind("a number", b"3", WHOLE, says="expected an object"),
    Kind("null", b"null", WHOLE, says="expected an object"),
    Kind("NaN", b"NaN", WHOLE, says="expected an object"),
    Kind("a trailing comma", raw(""), WHOLE, says="not JSON"),
    Kind("two objects", asr() + b" " + asr(), WHOLE, says="not JSON"),
    Kind("half an object", asr()[:-10], WHOLE, says="not JSON"),
    Kind("single quotes", b"{'text': 'one'}", WHOLE, says="not JSON"),
    Kind("a comment", b"# one", WHOLE, says="not JSON"),
    Kind("comma separated", b"a.wav,one,0.5", WHOLE, says="not JSON"),
    Kind("latin 1", asr(text="caf") + b"\xe9", WHOLE, says="UTF-8"),
    Kind("bytes of a surrogate", raw('"x": "?"').replace(b"?", b"\xed\xa0\x80"), WHOLE),
    Kind("NUL bytes", b"\0" * 20, WHOLE, says="not JSON"),
    Kind("a NUL byte in a text", without("text", '"text": "a\0b"'), WHOLE, says="not JSON"),
    Kind("UTF-16", '{"text": "one"}'.encode("utf-16-be"), WHOLE, says="not JSON"),
    # objects that Python chokes on
    Kind("deep lists", raw(f'"x": {DEEP}'), WHOLE, says="nested deeper than 64"),
    Kind("deep objects", raw('"x": ' + '{"a": ' * 99_999 + "1" + "}" * 99_999), WHOLE, says="deep"),
    Kind("deep and open", raw('"x": ' + "[" * 100_000), WHOLE),
    Kind("deep alone", DEEP.encode(), WHOLE, says="deep"),
    Kind("seventy deep", raw('"x": ' + "[" * 70 + "]" * 70), WHOLE, says="deep"),
    Kind("400 digits", without("duration", '"duration": 1' + "0" * 400), "duration"),
    Kind("5,000 digits", without("duration", '"duration": 1' + "0" * 5000), "duration"),
    Kind("minus 400 digits", without("duration", '"duration": -1' + "0" * 400), "duration"),
    Kind("5,000 digits elsewhere", raw('"n": {"a": [1' + "0" * 5000 + "]}"), "n"),
    Kind("a number without end", without("duration", '"duration": 1e999'), "duration"),
    Kind("NaN seconds", without("duration", '"duration": NaN'), "duration", says="0 seconds"),
    Kind("infinite seconds", without("duration", '"duration": Infinity'), "duration"),
    Kind("an infinite offset", raw('"offset": Infinity'), "offset"),
    Kind("a NaN offset", raw('"offset": NaN'), "offset"),
    # halves of emoji
    Kind("half an emoji in the text", without("text", r'"text": "one \ud83d"'), "text"),
    Kind("the other half", without("text", r'"text": "one \uDE00"'), "text"),
    Kind("half an emoji in the id", raw(r'"id": "one \ud800"'), "id"),
    Kind("half an emoji in a list", raw(r'"keywords": ["\udfff"]'), "keywords"),
    Kind("half an emoji elsewhere", raw(r'"x": {"y": ["\ud800"]}'), "x"),
    Kind("half an emoji in a name", raw(r'"\ud800": 1'), WHOLE),
    Kind(
        "half an emoji in a path",
        without("audio_filepath", r'"audio_filepath": "\ud800.wav"'),
        "audio_filepath",
    ),
    # twice
    Kind("a text twice", raw('"text": "two"'), "text", says="twice"),
    Kind("an unknown field twice", raw('"x": 1, "x": 2'), "x", says="twice"),
    Kind("an id twice", asr(id="m:1"), "id", says="already used in line 1"),
    Kind("audio and segments", asr(segments=[{"audio_filepath": "a.wav"}]), "audio_filepath"),
    # seconds
    Kind("a negative duration", asr(duration=-1), "duration", says="got -1"),
    Kind("no seconds", asr(duration=0), "duration", says="is 0"),
    Kind("minus zero seconds", asr(duration=-0.0), "duration", says="is 0"),
    Kind("seconds in quotes", asr(duration="1.5"), "duration", says='got str "1.5"'),
    Kind("true seconds", asr(duration=True), "duration", says="got bool true"),
    Kind("a list of seconds", asr(duration=[0.5]), "duration", says="got list"),
    Kind("milliseconds of a week", asr(duration=6e8), "duration", says="milliseconds"),
    Kind("a negative offset", asr(offset=-0.5), "offset"),
    Kind("an offset in quotes", asr(offset="0.5"), "offset"),
    Kind("an offset of years", asr(offset=1e300), "offset"),
    Kind("an offset behind the end", asr(offset=0.7, duration=None), "offset", says="behind"),
    Kind("a huge gap", asr(gap=1e9), "gap"),
    Kind("a negative gap", asr(gap=-1), "gap"),
    Kind(
        "a made sound without end", asr(audio_filepath="synthetic:hum", duration=1e12), "duration"
    ),
    Kind(
        "a made sound of no length", asr(audio_filepath="synthetic:hum", duration=None), "duration"
    ),
    # files
    Kind("a missing file", asr(audio_filepath="gone.wav"), "audio_filepath", says="no such file"),
    Kind("a folder", asr(audio_filepath="clips"), "audio_filepath", says="is a folder"),
    Kind("no name", asr(audio_filepath=""), "audio_filepath", says="empty"),
    Kind("nobody's file", asr(audio_filepath="~nobody_here/x.wav"), "audio_filepath", says="user"),
    Kind("a NUL in a path", asr(audio_filepath="a\0.wav"), "audio_filepath", says="NUL"),
    Kind("a long path", asr(audio_filepath="a" * 5000), "audio_filepath", says="no such file"),
    Kind("a raw file", asr(audio_filepath="x.raw", duration=None), "audio_filepath"),
    Kind("no audio in it", asr(audio_filepath="noise.wav", duration=None), "audio_filepath"),
    Kind("an empty file", asr(audio_filepath="void.wav", duration=None), "audio_filepath"),
    Kind("no samples", asr(audio_filepath="empty.wav", duration=None), "audio_filepath"),
    Kind("a path that is a number", asr(audio_filepath=3), "audio_filepath", says="string"),
    Kind("a null path", asr(audio_filepath=...), "audio_filepath", says="string"),
    Kind("a list of paths", asr(audio_filepath=["a.wav"]), "audio_filepath", says="string"),
    # texts and the rest
    Kind("a text that is a number", asr(text=3), "text", says="string, got int 3"),
    Kind("a null text", asr(text=...), "text", says="string"),
    Kind("a list of texts", asr(text=["one"]), "text", says="string"),
    Kind("blanks as a text", asr(text=" \t"), "text", says="empty"),
    Kind("an escaped NUL in a text", asr(text="one\0two"), "text", says="NUL"),
    Kind("an id that is a number", asr(id=7), "id", says="string"),
    Kind("a null id", asr(id=...), "id", says="string"),
    Kind("a lang that is a number", asr(lang=1), "lang", says="string"),
    Kind("keywords in one string", asr(keywords="one"), "keywords", says="list of strings"),
    Kind("numbers as keywords", asr(keywords=[1]), "keywords[0]", says="got int 1"),
    Kind("segments that are none", asr(audio_filepath=None, segments="a.wav"), "segments"),
    Kind("no segments", asr(audio_filepath=None, segments=[]), "segments"),
    Kind(
        "segments without a file",
        asr(audio_filepath=None, segments=[{"duration": 1}]),
        "segments[0].audio_filepath",
    ),
    # other names
    Kind(
        "audio_path",
        asr(audio_filepath=None, audio_path="a.wav"),
        "audio_filepath",
        says="`audio_path`?",
    ),
    Kind("audio", asr(audio_filepath=None, audio="a.wav"), "audio_filepath", says="`audio`?"),
    Kind("sentence", asr(text=None, sentence="one"), "text", says="`sentence`?"),
    Kind("transcript", asr(text=None, transcript="one"), "text", says="`transcript`?"),
    Kind("Text", asr(text=None, Text="one"), "text", says="`Text`?"),
    Kind("lang_id", asr(lang_id="de"), "lang_id", says="did you mean `lang`?"),
    Kind("language", asr(language="de"), "language", says="did you mean `lang`?"),
    Kind("ofset", asr(ofset=0.1), "ofset", says="did you mean `offset`?"),
    Kind("keyword", asr(keyword=["one"]), "keyword", says="did you mean `keywords`?"),
    Kind("Duration", asr(duration=None, Duration=0.1), "Duration", says="did you mean `duration`?"),
]

TTS_KINDS = [
    # taken
    Kind(
        "a prompt",
        tts(duration=1.2),
        has={"duration_s": 1.2, "extra": {"prompt_text": "good morning"}},
    ),
    Kind("the prompt's pace", tts(), has={"duration_s": round(7 * 8 / 12, 4)}),
    Kind(
        "no prompt", fields({"text": "one"}, duration=0.5), has={"segments": (), "duration_s": 0.5}
    ),
    Kind(
        "a cut prompt", tts(offset=1, prompt_duration=2), has={"duration_s": round(7 * 2 / 12, 4)}
    ),
    Kind("fast speech", tts(prompt_text="a" * 40, prompt_duration=1.0), has={"text": "one two"}),
    Kind("fast Chinese", tts(prompt_text="一" * 15, prompt_duration=1.0), has={"text": "one two"}),
    Kind(
        "only punctuation",
        tts(prompt_text="..." * 30, prompt_duration=1.0),
        has={"text": "one two"},
    ),
    Kind(
        "a target",
        fields({"text": "one"}, target={"audio_filepath": "a.wav"}),
        has={"duration_s": 0.5},
    ),
    Kind("a null duration", tts(duration=...), has={"duration_s": round(7 * 8 / 12, 4)}),
    # refused
    Kind(
        "a prompt text alone",
        tts(audio_filepath=None, duration=1.2),
        "prompt_text",
        says="no `audio_filepath`",
    ),
    Kind(
        "audio_path",
        tts(audio_filepath=None, audio_path="voice.wav", duration=1.2),
        "prompt_text",
        says="`audio_path`?",
    ),
    Kind(
        "a nameless prompt",
        fields({"text": "one"}, prompt_audio="voice.wav", duration=1),
        "prompt_audio",
        says="`audio_filepath`?",
    ),
    Kind(
        "audio",
        fields({"text": "one"}, audio="voice.wav", duration=1),
        "audio",
        says="`audio_filepath`?",
    ),
    Kind(
        "a length of no prompt",
        fields({"text": "one"}, prompt_duration=1, duration=1),
        "prompt_duration",
    ),
    Kind(
        "prompt_transcript",
        tts(prompt_text=None, prompt_transcript="good", duration=1),
        "prompt_transcript",
    ),
    Kind(
        "89 letters a second",
        tts(prompt_text=SAID, prompt_duration=1.0),
        "prompt_text",
        says="89 characters of text in 1 s",
    ),
    Kind(
        "297 letters a second",
        tts(prompt_text=SAID, prompt_duration=0.3, duration=3),
        "prompt_text",
    ),
    Kind(
        "20 Chinese characters a second",
        tts(prompt_text="一" * 20, prompt_duration=1.0),
        "prompt_text",
    ),
    Kind(
        "another target",
        fields({"text": SAID}, target={"audio_filepath": "a.wav"}),
        "target",
        says="0.5 s",
    ),
    Kind(
        "a target of no file",
        fields({"text": "one"}, target={"audio_filepath": "gone.wav"}),
        "target.audio_filepath",
    ),
    Kind("a target that is a number", fields({"text": "one"}, target=3, duration=1), "target"),
    Kind("no seconds", tts(duration=0), "duration", says="is 0"),
    Kind("negative seconds", tts(duration=-1), "duration"),
    Kind("seconds in quotes", tts(duration="1.2"), "duration"),
    Kind("no length at all", fields({"text": "one"}), "duration", says="expected length"),
    Kind("a prompt of no seconds", tts(prompt_duration=0), "prompt_duration"),
    Kind(
        "a prompt text that is a number",
        tts(prompt_text=3, duration=1),
        "prompt_text",
        says="string",
    ),
    Kind(
        "a list of prompt texts", tts(prompt_text=["one"], duration=1), "prompt_text", says="string"
    ),
    Kind("half an emoji", tts()[:-1] + rb', "style": "\ud83d"}', "style"),
    Kind("400 digits", tts()[:-1] + b', "duration": 1' + b"0" * 400 + b"}", "duration"),
    Kind("deep", tts()[:-1] + f', "x": {DEEP}}}'.encode(), WHOLE),
    Kind("prompt and segments", tts(segments=[{"audio_filepath": "a.wav"}]), "audio_filepath"),
    Kind("an id twice", tts(id="m:1"), "id", says="already used in line 1"),
    Kind("no text", tts(text=None), "text"),
    Kind("sentence", tts(text=None, sentence="one", duration=1), "sentence", says="`text`?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    write_tone(folder / "a.wav", seconds=0.5)
    write_tone(folder / "voice.wav", seconds=8.0, rate_hz=8000)
    write_tone(folder / "clips" / "b.wav")
    soundfile.write(folder / "empty.wav", [], 8000)
    (folder / "noise.wav").write_bytes(b"this is no audio" * 20)
    (folder / "void.wav").write_bytes(b"")
    (folder / "x.raw").write_bytes(b"\0\1" * 100)
    return folder


def write(folder: Path, good: dict[str, Any], line: bytes) -> Path:
    """The line in question is the second of three."""
    path = folder / "m.jsonl"
    last = json.dumps({**good, "id": "last"}).encode()
    path.write_bytes(b"\n".join([json.dumps(good).encode(), line, last, b""]))
    return path


def check(path: Path, kind: Kind, source: Any) -> None:
    """The source keeps the promise of a kind, in both settings."""
    if not kind.refused:
        row = source(str(path))[1]
        assert row.id == "m:2"
        for name, value in (kind.has or {}).items():
            assert getattr(row, name) == value, name
        return

    with pytest.raises(ManifestError) as caught:
        source(str(path))[1]
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2")
    assert f"field `{kind.refused}`" in message
    assert kind.says in message
    # What is shown can be written anywhere.
    message.encode()

    rows = source(str(path), on_bad_row="skip")
    assert [row.id for row in rows] == ["m:1", "last"]
    assert rows.skipped.total() == 1


@pytest.mark.fault(
    "Manifests",
    "a line for recognition, of 113 kinds (numbers of 5,000 digits, lists 100,000 deep, half an emoji)",
    "the row is taken as it says, or refused with file, line and field; under on_bad_row: skip it is counted",
)
@pytest.mark.parametrize("kind", ASR_KINDS, ids=lambda kind: kind.name)
def test_a_line_for_recognition(folder: Path, kind: Kind) -> None:
    path = write(folder, GOOD, kind.line)
    check(path, kind, ManifestRows)
    check(path, kind, IndexedManifest)


@pytest.mark.fault(
    "Manifests",
    "a line for synthesis, of 35 kinds (a prompt's text without audio, 89 letters a second)",
    "the row is taken as it says, or refused with file, line and field; under on_bad_row: skip it is counted",
)
@pytest.mark.parametrize("kind", TTS_KINDS, ids=lambda kind: kind.name)
def test_a_line_for_synthesis(folder: Path, kind: Kind) -> None:
    check(write(folder, {**SPOKEN, "duration": 1.0}, kind.line), kind, SpeechManifest)


def test_there_are_as_many_kinds_as_are_said() -> None:
    assert (len(ASR_KINDS), len(TTS_KINDS)) == (113, 35)
    for kinds in (ASR_KINDS, TTS_KINDS):
        assert len({kind.name for kind in kinds}) == len(kinds)


@pytest.mark.fault(
    "Manifests",
    "a manifest that is a folder, compressed, in UTF-16, empty, or of bad lines alone",
    "an error that names it and says so",
)
def test_a_file_that_is_no_manifest(folder: Path) -> None:
    path = folder / "odd.jsonl"

    def refused(content: bytes, says: str, **settings: Any) -> None:
        path.write_bytes(content)
        for source in (ManifestRows, IndexedManifest, SpeechManifest):
            with pytest.raises(ManifestError, match=says) as caught:
                len(source(str(path), **settings))
            assert str(path) in str(caught.value)

    refused(b"", "no usable row")
    refused(b"\n \r\n\n", "no usable row")
    refused(b"\x1f\x8b\x08\0\0\0", "is compressed .gzip.; unpack it")
    refused(b"\x1f\x8b\x08\0\0\0", "is compressed .gzip.; unpack it", on_bad_row="skip")
    refused("{}".encode("utf-16"), "is in UTF-16")
    refused(b'{"a": 1,}\n[]\n', r"2 x bad JSON.*line 1", on_bad_row="skip")

    for source in (ManifestRows, IndexedManifest, SpeechManifest):
        with pytest.raises(FileNotFoundError, match="it is a folder"):
            source(str(folder))
        with pytest.raises(FileNotFoundError, match="no such manifest"):
            source("~nobody_here/m.jsonl")
        with pytest.raises(ValueError, match="on_bad_row must be error or skip"):
            len(source(str(write(folder, SPOKEN, tts())), on_bad_row="Skip"))


@pytest.mark.fault(
    "Manifests",
    "bad lines are skipped",
    "the warning counts them by reason and quotes the first, with its line",
)
def test_what_is_skipped_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(folder, GOOD, asr(duration=-1))
    ManifestRows(str(path), on_bad_row="skip")
    assert "skipped 1 of 3 rows (1 x negative duration); the first: " in caplog.text
    assert f"{path}, line 2, field `duration`" in caplog.text


def test_a_row_knows_its_line_and_is_equal_to_that_of_another(folder: Path) -> None:
    from lightning_audiorl.types import Origin

    path = write(folder, GOOD, asr())
    rows = ManifestRows(str(path))
    assert rows[1].origin == Origin(f"{path}, line 2", skip=False)
    assert IndexedManifest(str(path), on_bad_row="skip")[2].origin == Origin(
        f"{path}, line 3", True
    )
    made = Utterance("m:2", (Segment(str(folder / "a.wav"), 0.5),), "one", 0.5)
    assert rows[1] == made
    assert math.isclose(rows[1].duration_s, 0.5)
