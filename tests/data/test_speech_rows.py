"""Rows of speech synthesis: who speaks, what the prompt is, what it must not hold, how long the speech will be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_audiorl.data import (
    EspeakSpeech,
    FsddDigits,
    FsddSpeech,
    HardTexts,
    IndexedManifest,
    ManifestError,
    PromptedSpeech,
    RowSource,
    SpeechManifest,
    Texts,
    TextSpeech,
    write_manifest,
)
from lightning_audiorl.data.corpora.espeak import speak_to_file
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.corpora.speaker_prompts import speech_row
from lightning_audiorl.data.manifest.targets import all_segments, length_s, target_segments
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import SPEAKERS, write_tone


class Recorded(RowSource):
    """One second per row; row i is by the i-th of ``speakers`` and says its own number."""

    def __init__(self, speakers: str, folder: Path, seconds: float = 1.0) -> None:
        self.speakers, self.folder, self.seconds = speakers, folder, seconds

    def __len__(self) -> int:
        return len(self.speakers)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        segment = Segment(str(self.folder / f"{index}.wav"), self.seconds)
        speaker = self.speakers[index].strip()
        return Utterance(
            f"rec{index}", (segment,), f"say number {index}", self.seconds, speaker=speaker
        )


def files(segments: tuple[Segment, ...]) -> list[str]:
    return [
        segment.audio_filepath
        for segment in segments
        if not segment.audio_filepath.startswith("synthetic:")
    ]


def test_a_prompt_is_another_utterance_of_the_speaker(root: str) -> None:
    rows = FsddSpeech(root, "train", num_words=(2, 6), num_rows=40, prompt_words=(2, 3))
    digits = FsddDigits(root, "train", num_words=(2, 6), num_rows=40)
    lengths = set()
    for row, plain in zip(rows, digits, strict=True):
        assert (row.text, row.speaker, row.duration_s) == (
            plain.text,
            plain.speaker,
            plain.duration_s,
        )
        assert target_segments(row) == plain.segments
        prompt = files(row.segments)
        assert [DIGIT_WORDS[int(Path(path).name[0])] for path in prompt] == row.extra[
            "prompt_text"
        ].split()
        assert {Path(path).name.split("_")[1] for path in prompt} == {row.speaker}
        assert not set(prompt) & set(files(plain.segments))
        lengths.add(len(prompt))
    assert lengths == {2, 3}
    assert len({row.id for row in rows}) == 40
    assert {row.speaker for row in rows} == set(SPEAKERS)


def test_rows_without_target_say_how_long_the_speech_will_be(root: str) -> None:
    settings: dict[str, Any] = {
        "num_words": (3, 3),
        "num_rows": 30,
        "gap_s": (0.1, 0.1),
        "edge_s": (0.2, 0.2),
    }
    with_target, without = (
        FsddSpeech(root, **settings),
        FsddSpeech(root, with_target=False, **settings),
    )
    for row, other in zip(with_target, without, strict=True):
        assert (row.text, row.segments, row.id) == (other.text, other.segments, other.id)
        assert "target" not in other.extra
        # Recordings 9 to 11 of digit d last 0.05 + 0.002 d + 0.001 * (9, 10, 11) s: on average those of number 10.
        spoken_s = sum(0.06 + 0.002 * DIGIT_WORDS.index(word) for word in row.text.split())
        assert other.duration_s == pytest.approx(0.2 + 0.2 + 0.1 + 0.1 + spoken_s, abs=2e-4)


def test_a_row_depends_on_its_number_alone(root: str) -> None:
    assert FsddSpeech(root, num_rows=9)[7] == FsddSpeech(root, num_rows=400)[7]
    assert FsddSpeech(root, seed=1)[7].segments != FsddSpeech(root, seed=2)[7].segments
    rows = FsddSpeech(root, num_rows=20, prompt_words=None)
    assert all(
        row.segments == () and "prompt_text" not in row.extra and row.speaker for row in rows
    )


def test_parts_and_halves_share_no_recording(root: str) -> None:
    used: dict[str, set[str]] = {}
    for part in ("train", "dev", "test"):
        for half in ("odd", "even"):
            rows = FsddSpeech(
                root, part, num_words=(1, 2), num_rows=60, prompt_words=(1, 2), recordings=half
            )
            used[f"{part} {half}"] = {path for row in rows for path in files(all_segments(row))}
            assert all(
                int(Path(p).stem.split("_")[2]) % 2 == (half == "odd")
                for p in used[f"{part} {half}"]
            )
    names = list(used)
    assert all(len(paths) > 20 for paths in used.values())
    assert not any(used[a] & used[b] for a in names for b in names if a < b)
    whole = FsddDigits(root, "train", num_rows=5)
    assert [row.id for row in FsddDigits(root, "train", num_rows=5, recordings="odd")] != [
        row.id for row in whole
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"only_speakers": ["dora"]}, "unknown speaker 'dora'; this folder has ann, bob, cy"),
        ({"recordings": "third"}, "recordings must be one of all, odd, even, got 'third'"),
        ({"prompt_words": (0, 3)}, r"FsddSpeech\.prompt_words: want \(low, high\) with 1 <= low"),
    ],
)
def test_bad_settings_of_digits(root: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FsddSpeech(root, **settings)


def test_a_row_that_leaves_no_recording_for_its_prompt(root: str) -> None:
    rows = FsddSpeech(root, num_words=(80, 80), num_rows=3, recordings="even")
    with pytest.raises(
        ValueError, match=r"row 'fsdd-train-w80to80-s0-even-000001' uses every recording of speaker"
    ):
        rows[1]


def test_espeak_prompts_have_the_voice_and_other_words(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "part": "dev",
        "num_rows": 4,
        "num_sentences": (2, 2),
        "cache_dir": str(tmp_path),
    }
    rows = list(EspeakSpeech(prompt_sentences=(1, 2), **settings))
    for row in rows:
        assert row.extra["prompt_text"] not in row.text
        assert length_s(target_segments(row)) == pytest.approx(row.duration_s, abs=1e-4)
        assert not set(files(row.segments)) & set(files(target_segments(row)))
    assert len({row.extra["prompt_text"] for row in rows}) == 4
    for row in EspeakSpeech(**settings):
        how = (row.speaker, row.extra["rate_wpm"], row.extra["pitch"])
        assert files(row.segments) == [str(speak_to_file(tmp_path, row.extra["prompt_text"], *how))]
    bare = EspeakSpeech(prompt_sentences=None, with_target=False, **settings)[0]
    assert (bare.text, bare.segments, bare.duration_s) == (rows[0].text, (), rows[0].duration_s)
    assert "target" not in bare.extra


def test_a_prompt_never_says_a_sentence_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few sentences to draw from, most first draws would."""
    few = ["call anna now", "find emma today", "leave paris tomorrow", "go to lima now"]
    settings: dict[str, Any] = {
        "voices": ["en-us"],
        "rate_wpm": (160, 160),
        "pitch": (50, 50),
        "num_rows": 6,
    }
    rows = EspeakSpeech(num_sentences=(3, 3), cache_dir=str(tmp_path), **settings)
    for module in ("espeak", "tts"):
        monkeypatch.setattr(
            f"lightning_audiorl.data.corpora.{module}.draw_sentence",
            lambda generator, *_: few[int(torch.randint(4, (), generator=generator))],
        )
    found = 0
    for number in range(6):
        row = rows[number]
        assert row.extra["prompt_text"] not in row.text
        found += len({sentence for sentence in few if sentence in row.text}) > 1
    assert found > 0
    said = next(sentence for sentence in few if sentence in rows[0].text)
    monkeypatch.setattr("lightning_audiorl.data.corpora.tts.draw_sentence", lambda *_: said)
    with pytest.raises(
        ValueError, match=r"row 'espeak-train-\w+-000000' holds every sentence of \(3, 8\) words"
    ):
        rows[0]


def test_recordings_prompt_each_other(tmp_path: Path) -> None:
    recordings = Recorded("abab", tmp_path)
    rows = list(PromptedSpeech(recordings))
    for number, row in enumerate(rows):
        other = recordings[(number + 2) % 4]
        assert (row.speaker, row.segments, row.extra["prompt_text"]) == (
            "abab"[number],
            other.segments,
            other.text,
        )
        assert (row.text, target_segments(row)) == (
            recordings[number].text,
            recordings[number].segments,
        )
        assert row.extra["sources"] == [f"rec{number}", other.id]
    many = Recorded("a" * 50, tmp_path)
    prompts = [PromptedSpeech(many, seed=seed)[3].extra["prompt_text"] for seed in range(12)]
    assert len(set(prompts)) > 4
    assert PromptedSpeech(many, seed=5)[3].extra["prompt_text"] == prompts[5]


@pytest.mark.parametrize(
    ("speakers", "prompts", "message"),
    [
        ("ab", "b", "row 'rec0': unknown speaker 'a'; the prompts have b"),
        (" b", "b", "row 'rec0': names no speaker; the prompts have b"),
        ("ab", "ab", "row 'rec0': speaker 'a' has no other recording of 1.0 to 15.0 s"),
    ],
)
def test_rows_without_a_prompt_are_named(
    tmp_path: Path, speakers: str, prompts: str, message: str
) -> None:
    rows = PromptedSpeech(Recorded(speakers, tmp_path), Recorded(prompts, tmp_path))
    with pytest.raises(ValueError, match=message):
        rows[0]


def test_recordings_too_short_for_a_prompt_are_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no other recording"):
        PromptedSpeech(Recorded("aaa", tmp_path, seconds=0.5))[0]
    assert PromptedSpeech(Recorded("aaa", tmp_path, seconds=0.5), min_prompt_s=0.5)[0].segments


def test_what_is_known_of_the_voice_comes_with_the_prompt() -> None:
    """Heads of Token2Text ask for it by the field's name; what the text's own row says counts more."""
    clip = (Segment("a.wav", 1.0),)
    extra = {"gender": "f", "emotion": "calm", "sources": ["x"]}
    prompt = Utterance("p", clip, "hello", 1.0, speaker="anna", extra=extra)
    made = speech_row(
        Utterance("t", (), "good bye", 1.0, extra={"emotion": "angry"}), "t+p", prompt, 1.0
    )
    assert made.extra == {"gender": "f", "emotion": "angry", "prompt_text": "hello"}
    assert speech_row(prompt, "p", None, 1.0).extra["gender"] == "f"


def test_texts_from_a_file_are_spoken_by_drawn_prompts(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("hello there\n\n  good bye \n")
    prompts = Recorded("abcdefgh", tmp_path)
    rows = list(TextSpeech(Texts(str(tmp_path / "t.txt")), prompts))
    assert [row.text for row in rows] == ["hello there", "good bye"]
    for row in rows:
        prompt = prompts[int(row.extra["prompt_text"].split()[-1])]
        assert (row.segments, row.speaker) == (prompt.segments, prompt.speaker)
        assert row.id.split("+")[1] == prompt.id
        assert row.duration_s == pytest.approx(len(row.text) * 1.0 / len("say number 0"), abs=1e-4)
    assert [row.id.split("+")[0] for row in rows] == ["t:1", "t:3"]
    (tmp_path / "t.txt").write_text("another text\n\n  good bye \n")
    assert TextSpeech(Texts(str(tmp_path / "t.txt")), prompts)[1] == rows[1]
    assert (
        len(
            {
                row.speaker
                for row in TextSpeech(
                    Texts(lines=[f"text {number}" for number in range(12)]), prompts
                )
            }
        )
        > 3
    )
    seeds = [
        TextSpeech(Texts(str(tmp_path / "t.txt")), prompts, seed=seed)[1].speaker
        for seed in range(20)
    ]
    assert len(set(seeds)) > 3


def test_lines_of_json_may_name_their_speaker(tmp_path: Path) -> None:
    lines = [
        {"text": "hello", "speaker": "b", "lang": "de", "id": "x", "topic": 3},
        {"text": "bye", "audio_filepath": "no.wav"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = str(tmp_path / "t.jsonl")
    hello, bye = TextSpeech(Texts(path), Recorded("abca", tmp_path), seconds_per_char=0.1)
    assert (hello.speaker, hello.lang, hello.extra["topic"], hello.duration_s) == (
        "b",
        "de",
        3,
        0.5,
    )
    assert (bye.id.split("+")[0], bye.lang) == ("t:2", "en")
    assert [row.segments for row in TextSpeech(Texts(path))] == [(), ()]
    with pytest.raises(
        ValueError, match="TextSpeech: row 'x': unknown speaker 'b'; the prompts have a, c"
    ):
        TextSpeech(Texts(path), Recorded("ac", tmp_path))[0]
    with pytest.raises(
        ValueError, match="only_speakers: unknown speaker 'z'; the prompts have a, b"
    ):
        TextSpeech(Texts(path), Recorded("ab", tmp_path), only_speakers=["z"])[1]
    found = [
        TextSpeech(Texts(path), Recorded("abab", tmp_path), only_speakers=["a"], seed=seed)[1]
        for seed in range(9)
    ]
    assert {row.speaker for row in found} == {"a"}
    assert len({row.segments for row in found}) == 2


def test_a_text_with_several_prompts(tmp_path: Path) -> None:
    rows = list(
        TextSpeech(Texts(lines=["one", "two"]), Recorded("abcdef", tmp_path), prompts_per_text=4)
    )
    assert [row.text for row in rows] == ["one"] * 4 + ["two"] * 4
    assert all(len({row.speaker for row in part}) == 4 for part in (rows[:4], rows[4:]))
    assert len({row.id for row in rows}) == 8
    with pytest.raises(ValueError, match=r"spoken with 7 different prompts and there are 6"):
        TextSpeech(Texts(lines=["one"]), Recorded("abcdef", tmp_path), prompts_per_text=7)[0]
    with pytest.raises(ValueError, match="give prompts"):
        TextSpeech(Texts(lines=["one"]), prompts_per_text=2)


def test_hard_texts_take_prompts(root: str) -> None:
    rows = list(TextSpeech(HardTexts(num_rows=6), FsddDigits(root, num_rows=50)))
    assert [row.text for row in rows] == [row.text for row in HardTexts(num_rows=6)]
    assert all(row.extra["kind"] and row.extra["prompt_text"] and row.segments for row in rows)


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"'texts-\w+:2': text 'café' has 'é' \(U\+00E9, LATIN SMALL LETTER E WITH ",
    ):
        TextSpeech(Texts(lines=["cafe", "café"]), charset="abcdefghijklmnopqrstuvwxyz ")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ManifestError, match="there is no text; give at least one"):
        Texts(str(tmp_path / "empty.txt"))
    with pytest.raises(FileNotFoundError, match="no such file of texts"):
        Texts(str(tmp_path / "gone.txt"))
    for line, message in (
        ('{"words": "a"}', r"line 2, field `text`: is missing"),
        ("{", r"line 2, field `\(whole line\)`: is not JSON"),
        ('{"text": "a", "id": "t:1"}', r"'t:1' is used twice"),
    ):
        (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' + line)
        with pytest.raises(ManifestError, match=message):
            Texts(str(tmp_path / "t.jsonl"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ManifestError, match=r"latin\.txt, line 1, field `text`: is not UTF-8"):
        Texts(str(tmp_path / "latin.txt"))


def manifest(folder: Path, *rows: dict[str, Any]) -> SpeechManifest:
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return SpeechManifest(str(folder / "m.jsonl"))


def test_a_manifest_names_prompt_and_recording(tmp_path: Path) -> None:
    write_tone(tmp_path / "p.wav", 0.5)
    write_tone(tmp_path / "a" / "t.wav", 0.8)
    prompt = {"audio_filepath": "p.wav", "prompt_text": "12345"}
    rows = list(
        manifest(
            tmp_path,
            {"text": "hello", **prompt, "target": {"audio_filepath": "a/t.wav"}, "speaker": "ann"},
            {"text": "hello", **prompt, "offset": 0.1, "prompt_duration": 0.2, "duration": 3.0},
            {"text": "0123456789", **prompt},
            {
                "text": "bare",
                "duration": 2.0,
                "target": [{"audio_filepath": "a/t.wav", "offset": 0.5}],
            },
        )
    )
    assert [row.duration_s for row in rows] == [0.8, 3.0, 1.0, 2.0]
    assert rows[0].segments == (Segment(str(tmp_path / "p.wav"), 0.5),)
    assert target_segments(rows[0]) == (Segment(str(tmp_path / "a" / "t.wav"), 0.8),)
    assert (rows[0].speaker, rows[0].extra["prompt_text"]) == ("ann", "12345")
    assert rows[1].segments == (Segment(str(tmp_path / "p.wav"), 0.2, 0.1),)
    assert rows[3].segments == ()
    assert target_segments(rows[3])[0].duration_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"m\.jsonl, line 1, field `duration`: is missing, and there is no target"),
        (
            {"text": "a", "duration": 1, "target": "t.wav"},
            r'line 1, field `target`: expected an object, got str "t.wav"',
        ),
        ({"text": "a", "duration": 1, "target": []}, r"field `target`: is an empty list"),
        (
            {"text": "a", "target": {"audio_filepath": "gone.wav"}},
            r"field `target.audio_filepath`: no such file: .*gone\.wav",
        ),
        (
            {"text": "a", "target": [{"audio_filepath": "a.wav", "duration": "1"}]},
            r"field `target\[0\].duration`: expected a number of seconds, got str",
        ),
        (
            {"text": "a", "duration": 1, "audio_filepath": "a.wav", "prompt_duration": "1"},
            r"field `prompt_duration`: expected a number of seconds, got str",
        ),
        (
            {"text": "a", "duration": 1, "audio_filepath": "gone.wav"},
            r"line 1.*no such file: .*gone\.wav",
        ),
        ({"text": " ", "duration": 1}, r"field `text`: is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        list(manifest(tmp_path, row))
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        SpeechManifest(str(tmp_path / "gone.jsonl"))


def test_ids_of_a_manifest_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 2, field `id`: 'x' is already used in line 1"):
        list(manifest(tmp_path, *[{"text": "a", "duration": 1, "id": "x"}] * 2))


def test_rows_survive_being_written(root: str, tmp_path: Path) -> None:
    one = Segment(str(tmp_path / "p.wav"), 0.5)
    rows = [
        FsddSpeech(root, num_rows=3)[2],
        FsddSpeech(root, prompt_words=None)[0],
        Utterance("short prompt", (one,), "a text", 7.25, extra={"prompt_text": "x"}),
    ]
    write_manifest(rows, tmp_path / "built.jsonl")
    path = str(tmp_path / "built.jsonl")
    assert list(IndexedManifest(path, check_files=False, allow_no_audio=True)) == rows
    with pytest.raises(
        ManifestError, match=r"line 2, field `segments`: expected a list of objects, got list \[\]"
    ):
        IndexedManifest(path, check_files=False)


def test_only_lists_of_segments_are_targets() -> None:
    row = Utterance("r", (), "a", 1.0, extra={"target": "a translation"})
    assert all_segments(row) == ()
    with pytest.raises(ValueError, match=r"row 'r', field `target`: expected a list of segments"):
        target_segments(row)


def test_yaml_names_a_file_of_texts(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo three\n")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--rows", type=RowSource)
    texts = {
        "class_path": "lightning_audiorl.data.Texts",
        "init_args": {"path": str(tmp_path / "t.txt")},
    }
    spoken = {"class_path": "lightning_audiorl.data.TextSpeech", "init_args": {"texts": texts}}
    for spec in (texts, spoken):
        rows = parser.instantiate_classes(parser.parse_object({"rows": spec})).rows
        assert [row.text for row in rows] == ["one", "two three"]
    with pytest.raises(ValueError, match="give either the path of a file or lines"):
        Texts()
