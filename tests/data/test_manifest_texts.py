"""Texts and languages of manifests: what says nothing, and what is no language, is refused by its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data import (
    AsrDataModule,
    IndexedManifest,
    ManifestError,
    ManifestRows,
    SpeechManifest,
    Texts,
    read_manifest,
    write_manifest,
)
from lightning_audiorl.data.datamodules.tts import TtsDataModule
from lightning_audiorl.data.hypotheses.reader import row_fingerprint

WORDLESS = ("...", "？！", "-", "%", "<noise>", "[UNK]", "❤", "❤️", "\u20e3", "\u200b", " . ")


def manifest(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "m.jsonl"
    lines = [{"audio_filepath": "a.wav", "duration": 1.0, "text": "one", **row} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.fault(
    "Text",
    "a text of punctuation, special tokens or emoji alone in a manifest",
    "is refused by line and field like an empty one, also with allow_empty_text",
)
@pytest.mark.parametrize("allow_empty_text", [False, True])
@pytest.mark.parametrize("text", WORDLESS)
def test_a_text_without_words_is_refused(text: str, allow_empty_text: bool, tmp_path: Path) -> None:
    path = manifest(tmp_path, {}, {"text": text})
    with pytest.raises(ManifestError, match=r"line 2, field `text`.*no word.*for non-speech"):
        read_manifest(path, allow_empty_text=allow_empty_text, check_files=False)


def test_words_of_any_script_and_empty_texts_are_taken(tmp_path: Path) -> None:
    texts = ["a", "7", "我", "हिन्दी", "10 %", "½", "hm...", "<b>bold</b>", "ﷺ"]
    path = manifest(tmp_path, *[{"text": text} for text in texts])
    assert [row.text for row in read_manifest(path, check_files=False)] == texts
    path = manifest(tmp_path, {"text": " "})
    assert len(read_manifest(path, check_files=False, allow_empty_text=True)) == 1


@pytest.mark.fault(
    "Text",
    "a text to be spoken of punctuation or tags of sounds alone",
    "is refused by line and field",
)
@pytest.mark.parametrize("text", ["...", "❤️", "[laughter]", "<strong>"])
def test_a_text_to_be_spoken_has_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": text, "duration": 1.0}))
    (tmp_path / "s.txt").write_text(text)
    sources: list[Callable[[], Any]] = [
        lambda: SpeechManifest(str(tmp_path / "s.jsonl"))[0],
        lambda: Texts(str(tmp_path / "s.jsonl")),
        lambda: Texts(str(tmp_path / "s.txt")),
        lambda: Texts(lines=[text]),
    ]
    for source in sources:
        with pytest.raises(ManifestError, match=r"line 1, field `text`.*no word"):
            source()


@pytest.mark.fault(
    "Text",
    "a lang that is neither a code nor a name",
    "is refused by line and field, with the nearest known one",
)
def test_what_is_no_language_is_refused(tmp_path: Path) -> None:
    for lang, near in {
        "englsh": r"'en' \(English\)",
        "Chinse": r"'zh' \(Chinese\)",
        "xx-nonsense": "'German'",
    }.items():
        path = manifest(tmp_path, {"lang": "zh-Hant-TW"}, {"lang": lang})
        with pytest.raises(ManifestError, match=rf"line 2, field `lang`: '{lang}' is no.*{near}"):
            read_manifest(path, check_files=False)
        for make in (lambda: ManifestRows(path, lang=lang), lambda: Texts(lines=["a"], lang=lang)):  # noqa: B023
            with pytest.raises(ValueError, match=rf"'{lang}' is no language"):
                make()

    # Codes that are well formed are taken, be they in the table or not.
    langs = ["tlh", "sw-KE", "Mandarin", "EN", "zh-en", "mixed"]
    path = manifest(tmp_path, *[{"lang": lang} for lang in langs])
    assert [row.lang for row in read_manifest(path, check_files=False)] == langs


@pytest.mark.fault(
    "Text",
    "a manifest whose rows name no language",
    "has the `lang` of the data module or of its source; a row's own comes first",
)
def test_a_manifest_may_have_one_language(tmp_path: Path) -> None:
    path = manifest(tmp_path, {}, {"lang": ""}, {"lang": "de"})

    def langs(rows: Any) -> list[str]:
        return [row.lang for row in rows]

    for source in (ManifestRows, IndexedManifest):
        assert langs(source(path, check_files=False, lang="zh-CN")) == ["zh-CN", "zh-CN", "de"]
        assert langs(source(path, check_files=False)) == ["en", "en", "de"]

    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "你好", "duration": 1.0}')
    assert langs(SpeechManifest(str(texts), lang="zh")) == ["zh"]

    (tmp_path / "a.wav").write_bytes(b"")
    module = AsrDataModule(val={"dev": path}, lang="Chinese", on_bad_row="error")
    assert module.lang == "Chinese"
    tts = TtsDataModule(train=str(texts), val={"dev": str(texts)}, lang="zh")
    assert langs(tts.rows("train/0")) == langs(tts.rows("val/dev")) == ["zh"]


@pytest.mark.fault(
    "Text",
    "phonemes as a text to be spoken",
    "have the field spoken_text beside them, which manifests and hypotheses keep",
)
def test_what_is_to_be_heard_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "haɪ ðɛɹ", "spoken_text": "hi there", "duration": 1.0}')
    (row,) = list(SpeechManifest(str(path)))
    assert "spoken_text" not in row.extra
    assert (row.text, row.spoken_text, row.reference) == ("haɪ ðɛɹ", "hi there", "hi there")

    write_manifest([row], tmp_path / "again.jsonl")
    (again,) = list(SpeechManifest(str(tmp_path / "again.jsonl")))
    assert again == row

    # A line of hypotheses is of this row alone, and rows without the field are who they were.
    (plain,) = list(Texts(lines=["haɪ ðɛɹ"]))
    assert row_fingerprint(row) != row_fingerprint(plain)
    assert "spoken" not in repr(plain)

    path.write_text('{"text": "haɪ ðɛɹ", "spoken_text": "...", "duration": 1.0}')
    with pytest.raises(ManifestError, match=r"line 1, field `spoken_text`.*no word"):
        list(SpeechManifest(str(path)))
