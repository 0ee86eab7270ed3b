"""Data sets in the layouts of other tools: the rows, samples and hashes are those of a plain manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_audiorl import cli
from lightning_audiorl.data import ManifestRows, read_audio
from lightning_audiorl.data.audio.content_hash import ContentHashes
from tests.data.layouts import CASES, Case, Clip, make_clips, manifest


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def plain(clips: list[Clip]) -> ManifestRows:
    return ManifestRows(str(manifest(clips[0].path.parent, clips)))


def converted(case: Case, source: Path, out: Path, *args: str) -> ManifestRows:
    """The rows of the manifest that the command writes."""
    options = list(case.options)
    if (source / "tarred_audio_manifest.json").is_file():
        options += ["--shard_manifest", str(source / "tarred_audio_manifest.json")]
    cli.main(["manifest", str(source), "--kind", case.kind, "--out", str(out), *options, *args])
    return ManifestRows(str(out), allow_empty_text=True)


def check_round_trip(name: str, folder: Path, clips: list[Clip], plain: ManifestRows) -> None:
    """The rows of a layout have the ids, texts, samples and content hashes of those of a plain manifest."""
    case = CASES[name]
    source = case.write(folder / "set", clips)
    rows = converted(case, source, folder / "rows.jsonl", "--check", "true")

    assert [row.id for row in rows] == [row.id for row in plain]
    for row, wanted in zip(rows, plain, strict=True):
        text = wanted.text.replace(" ", "") if name == "aishell" else wanted.text
        assert row.text == text
        assert row.lang == {"aishell": "zh", "cuts": "English"}.get(name, row.lang)
        assert row.speaker == (wanted.speaker if case.speakers else "")
        assert row.duration_s == pytest.approx(wanted.duration_s, abs=1e-6)
        assert read_audio(row, 16000).equal(read_audio(wanted, 16000))

    with ContentHashes(folder / "hashes.sqlite") as hashes:
        for row, wanted in zip(rows, plain, strict=True):
            (heard,) = hashes.row(row)
            (as_wanted,) = hashes.row(wanted)
            assert heard.cut == as_wanted.cut


@pytest.mark.parametrize("name", CASES)
def test_rows_samples_and_hashes_are_those_of_a_manifest(
    name: str,
    tmp_path: Path,
    clips: list[Clip],
    plain: ManifestRows,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_round_trip(name, tmp_path, clips, plain)
    case = CASES[name]

    said = capsys.readouterr().out
    assert f"rows       {len(clips)}\n" in said
    assert "left out   none" in said
    assert ("speakers   3\n" if case.speakers else "speakers   not named\n") in said


def test_every_kind_has_a_round_trip() -> None:
    from lightning_audiorl.data.layouts import LAYOUTS

    # Texts to be spoken have a prompt in place of a recording: see test_spoken_lists.
    spoken = {"seedtts", "cv3eval"}
    assert {case.kind for case in CASES.values()} == set(LAYOUTS) - spoken
