"""Lists of texts to be spoken and biasing lists, in the layouts in which they are published, become manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_audiorl import cli
from lightning_audiorl.data import ManifestError, ManifestRows, SpeechManifest, TtsDataModule
from lightning_audiorl.data.manifest.targets import target_segments
from tests.data import eval_sets
from tests.data.eval_sets import CHINESE, ENGLISH
from tests.data.layouts import Clip, fleurs, librispeech, make_clips


def written(source: Path, kind: str, out: Path, *options: str) -> str:
    """The path of the manifest that the command writes."""
    cli.main(["manifest", str(source), "--kind", kind, "--out", str(out), *options])
    return str(out)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"), 6)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- texts to be spoken


def test_seedtts(tmp_path: Path) -> None:
    source = eval_sets.seedtts(tmp_path, "en", ENGLISH)
    path = written(source, "seedtts", tmp_path / "rows.jsonl", "--check", "true")
    rows = list(SpeechManifest(path))
    assert [(row.id, row.text, row.lang) for row in rows] == [
        ("0-a", "three", "en"),
        ("1-a", "two three, one", "en"),
        ("2-a", "one", "en"),
    ]
    for row, (seconds, prompt_text, _) in zip(rows, ENGLISH, strict=True):
        assert row.extra["prompt_text"] == prompt_text
        assert row.segments[0].duration_s == pytest.approx(seconds)
    # Five letters at the pace of six in half a second.
    assert rows[0].duration_s == pytest.approx(0.5 * 5 / 6, abs=1e-4)


def test_a_fifth_column_is_a_recording_of_the_text(tmp_path: Path) -> None:
    source = eval_sets.seedtts(tmp_path, "zh", CHINESE, targets=True)
    rows = list(SpeechManifest(written(source, "seedtts", tmp_path / "rows.jsonl")))
    assert {row.lang for row in rows} == {"zh"}
    for row, (seconds, _, _) in zip(rows, CHINESE, strict=True):
        (target,) = target_segments(row)
        assert row.duration_s == target.duration_s == pytest.approx(seconds + 0.1)


@pytest.mark.parametrize("name", ["zh", "hard_zh", "to_zh"])
def test_cv3eval(name: str, tmp_path: Path) -> None:
    folder = eval_sets.cv3eval(tmp_path, name, CHINESE)
    rows = list(SpeechManifest(written(folder, "cv3eval", tmp_path / "rows.jsonl")))
    assert [(row.id, row.text, row.lang) for row in rows] == [
        ("uttid_1", "三", "zh"),
        ("uttid_2", "二三一", "zh"),
        ("uttid_3", "一", "zh"),
    ]
    assert Path(rows[1].segments[0].audio_filepath).samefile(
        folder / "waveform" / "prompt_audio_2.wav"
    )


def test_a_text_in_another_script_than_its_prompt_has_a_sensible_length(tmp_path: Path) -> None:
    """Three characters are not said in the time of three letters."""
    texts = ((2.0, "one two three four five six", "一二三四五六"),)
    folder = eval_sets.cv3eval(tmp_path, "to_zh", texts)
    (row,) = SpeechManifest(written(folder, "cv3eval", tmp_path / "rows.jsonl"))
    assert 1.0 < row.duration_s < 2.0


def test_rows_are_prompts_as_models_read_them(tmp_path: Path) -> None:
    source = eval_sets.seedtts(tmp_path, "en", ENGLISH)
    path = written(source, "seedtts", tmp_path / "rows.jsonl")
    data = TtsDataModule(val={"seedtts": path})
    rows = data.load(list(SpeechManifest(path)))
    assert rows.num_samples.tolist() == [8000, 12000, 9600]


FAULTS: dict[str, tuple[str, str, str, str, str]] = {
    "columns": ("seedtts", "0-a|one two|", "one two|", "line 1, field `(whole line)`", "3 fields"),
    "text": ("seedtts", "wav|three", "wav|", "line 1, field `text`", "is empty"),
    "prompt text": ("seedtts", "|four.|", "|...|", "line 2, field `prompt_text`", "has no word"),
    "no file": ("seedtts", "|prompt-wavs/1.wav", "|1.wav", "`audio_filepath`", "no such file"),
    "no name": ("seedtts", "|prompt-wavs/1.wav", "|", "`audio_filepath`", "name the prompt's"),
    "twice": ("seedtts", "1-a|", "0-a|", "line 2, field `id`", "ids must be unique"),
    "no prompt": ("prompt_wav.scp", "uttid_2 ", "uttid_9 ", "`prompt_wav.scp`", "has no line"),
    "no prompt text": ("prompt_text", "uttid_2 ", "uttid_9 ", "`prompt_text`", "has no line"),
    "prompts twice": ("prompt_text", "uttid_2 ", "uttid_1 ", "line 2, field `id`", "leave one"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_lists_are_refused_by_place_and_remedy(name: str, tmp_path: Path) -> None:
    file, old, new, place, remedy = FAULTS[name]
    if file == "seedtts":
        source = eval_sets.seedtts(tmp_path, "en", ENGLISH)
        edit(source, old, new)
    else:
        source = eval_sets.cv3eval(tmp_path, "en", ENGLISH)
        edit(source / file, old, new)
    kind = "seedtts" if file == "seedtts" else "cv3eval"
    with pytest.raises(ManifestError) as refused:
        written(source, kind, tmp_path / "rows.jsonl")
    assert place in str(refused.value)
    assert remedy in str(refused.value)
    assert not (tmp_path / "rows.jsonl").exists()


def test_bad_rows_are_counted_where_they_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = eval_sets.seedtts(tmp_path, "en", ENGLISH)
    edit(source, "wav|three", "wav|")
    path = written(source, "seedtts", tmp_path / "rows.jsonl", "--on_bad_row", "skip")
    assert len(SpeechManifest(path)) == 2
    assert "left out   1 (1 x empty text)" in capsys.readouterr().out


# --- FLEURS


def test_fleurs_has_its_language_from_its_folder(tmp_path: Path, clips: list[Clip]) -> None:
    root = fleurs(tmp_path, clips).rename(tmp_path / "cmn_hans_cn")
    rows = list(ManifestRows(written(root, "fleurs", tmp_path / "rows.jsonl", "--split", "test")))
    assert {row.lang for row in rows} == {"zh"}
    assert [row.extra["sentence"] for row in rows] == ["0", "0", "1", "1", "2", "2"]

    options = ("--text", "normalised", "--overwrite", "true")
    rows = list(ManifestRows(written(root, "fleurs", tmp_path / "rows.jsonl", *options)))
    assert rows[0].text == clips[0].text.lower()
    with pytest.raises(ValueError, match="expected one of raw, normalised"):
        written(root, "fleurs", tmp_path / "other.jsonl", "--text", "plain")
    edit(root / "test.tsv", "\t", " ")
    edit(root / "test.tsv", "\t", " ")
    with pytest.raises(ManifestError, match=r"test\.tsv, line 1.*has 5 columns"):
        written(root, "fleurs", tmp_path / "other.jsonl")


# --- biasing lists


@pytest.fixture
def sources(tmp_path: Path, clips: list[Clip]) -> tuple[Path, Path]:
    """LibriSpeech's layout, and lists for it."""
    root = librispeech(tmp_path / "set", clips)
    lists = eval_sets.biasing(tmp_path / "lists.tsv", clips, ["york", "ghent"])
    return root, lists


def test_lists_become_keywords_and_hotwords(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    root, lists = sources
    path = written(root, "librispeech", tmp_path / "rows.jsonl", "--biasing", str(lists))
    rows = list(ManifestRows(path))
    assert [row.keywords for row in rows] == [(), ("three",), (), ("say",), (), ("nine",)]
    assert rows[0].extra["hotwords"] == ["ghent", "york"]
    assert rows[1].extra["hotwords"] == ["ghent", "three", "york"]


def test_a_model_that_is_not_told_gets_the_keywords_alone(
    tmp_path: Path, sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, lists = sources
    with lists.open("a") as file:
        file.write('other\tsome text\t["some"]\t["some"]\n')
    options = ("--biasing", str(lists), "--hotwords", "false")
    rows = list(ManifestRows(written(root, "librispeech", tmp_path / "rows.jsonl", *options)))
    assert rows[1].keywords == ("three",)
    assert not any("hotwords" in row.extra for row in rows)
    assert f"1 lines of {lists} are of no row" in capsys.readouterr().out


def line_of(lists: Path, number: int, change: Callable[[list[str]], object]) -> None:
    """Change the columns of a line, from 1."""
    lines = lists.read_text().splitlines()
    cells = lines[number - 1].split("\t")
    change(cells)
    lines[number - 1] = "\t".join(cells)
    lists.write_text("\n".join(lines) + "\n")


LIST_FAULTS: dict[str, tuple[Callable[[list[str]], object], str, str]] = {
    "columns": (lambda cells: cells.pop(1) and cells.pop(1), "(whole line)", "2 columns"),
    "json": (lambda cells: cells.__setitem__(2, "['a']"), "rare words", "is no JSON"),
    "no list": (lambda cells: cells.__setitem__(3, '{"a": 1}'), "words of the prompt", "expected"),
    "numbers": (lambda cells: cells.__setitem__(2, "[1]"), "rare words", "expected a list"),
    "not said": (lambda cells: cells.__setitem__(2, '["york"]'), "rare words", "that are said"),
    "another text": (lambda cells: cells.__setitem__(1, "three and"), "text", "of this set"),
    "another id": (lambda cells: cells.__setitem__(0, "x"), "keywords", "has no line in"),
    "twice": (lambda cells: cells.__setitem__(0, "11-1-0000"), "id", "leave one of the two"),
}


@pytest.mark.parametrize("name", LIST_FAULTS)
def test_bad_lists_name_line_column_and_remedy(
    name: str, tmp_path: Path, sources: tuple[Path, Path]
) -> None:
    root, lists = sources
    change, field, remedy = LIST_FAULTS[name]
    line_of(lists, 2, change)
    with pytest.raises(ManifestError) as refused:
        written(root, "librispeech", tmp_path / "rows.jsonl", "--biasing", str(lists))
    assert f"field `{field}`" in str(refused.value)
    assert remedy in str(refused.value)
    is_of_list = name not in ("another text", "another id")
    assert ("lists.tsv, line 2" if is_of_list else "trans.txt, line 2") in str(refused.value)


def test_a_row_that_no_list_has_can_be_left_out(
    tmp_path: Path, sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, lists = sources
    line_of(lists, 2, lambda cells: cells.__setitem__(0, "x"))
    options = ("--biasing", str(lists), "--on_bad_row", "skip")
    path = written(root, "librispeech", tmp_path / "rows.jsonl", *options)
    assert len(ManifestRows(path)) == 5
    assert "left out   1 (1 x no biasing list)" in capsys.readouterr().out


def test_no_such_lists(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    with pytest.raises(FileNotFoundError, match="no such file of biasing lists"):
        written(sources[0], "librispeech", tmp_path / "r.jsonl", "--biasing", str(tmp_path / "x"))
