"""docs/your_data.md: every command of the page, and its YAML, taken from there and run on a few clips made here."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from lightning_audiorl.data import read_manifest
from tests.command import run, tiny_config, write_manifest
from tests.data import layouts
from tests.data.eval_sets import CHINESE, ENGLISH, cv3eval, seedtts
from tests.data.fakes import write_tone
from tests.data.layouts import Clip, make_clips

PAGE = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text()
COMMANDS = re.findall(r"`(audiorl manifest [^`]+)`", PAGE)
YAML = [textwrap.dedent(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def librispeech(root: Path, clips: Sequence[Clip]) -> None:
    layouts.librispeech(root, clips)
    (root / "train-clean-5").rename(root / "train-clean-100")


def nemo(root: Path, clips: Sequence[Clip]) -> None:
    """NeMo's shards in the working directory, as the page has them."""
    for file in layouts.nemo(root / "nemo", clips).iterdir():
        file.rename(root / file.name)


#: What writes the source that a command names, below the working directory.
WRITERS: dict[str, Callable[[Path, Sequence[Clip]], Any]] = {
    "clips": layouts.folder_of_files,
    "clips with a table": layouts.folder_with_table,
    "LJSpeech-1.1": layouts.ljspeech,
    "cv-corpus/cy": layouts.commonvoice,
    "LibriSpeech": librispeech,
    "data_aishell": layouts.aishell,
    "data/train": layouts.kaldi,
    "cuts.jsonl.gz": lambda path, clips: layouts.lhotse_cuts(path.parent, clips),
    "folder": layouts.hf,
    "audio_{0..1}.tar": lambda path, clips: nemo(path.parent, clips),
    "shards": layouts.webdataset,
    "fleurs/data/de_de": lambda path, clips: layouts.fleurs(path.parent, clips).rename(path),
    "seedtts_testset/en/meta.lst": lambda path, _: seedtts(path.parents[1], "en", ENGLISH),
    "CV3-Eval/data/zero_shot/zh": lambda path, _: cv3eval(path.parents[2], "zh", CHINESE),
}


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """Clips, and a working directory and a home of one's own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    return make_clips(tmp_path / "made", 6)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command: str, clips: list[Clip]) -> None:
    # Two shards are enough.
    program, *args = shlex.split(command.replace("{0..15}", "{0..1}"))
    assert program == "audiorl"
    source = args[1]
    name = "clips with a table" if "--text" in args else source
    WRITERS[name](Path(source).absolute(), clips)

    cli.main(args)
    out = Path(args[args.index("--out") + 1])
    # Texts to be spoken are prompts of their own, three in each list.
    num_rows = 3 if out.name == "texts.jsonl" else len(clips)
    assert len(out.read_text().splitlines()) == num_rows


def test_every_kind_has_a_command() -> None:
    from lightning_audiorl.data.layouts import LAYOUTS

    assert {shlex.split(command)[4] for command in COMMANDS} == set(LAYOUTS)
    assert len(COMMANDS) == len(WRITERS)


def test_the_yaml_of_the_page_runs(tmp_path: Path, clips: list[Clip]) -> None:
    here = tmp_path / "here"
    # What the tiny model's tokenizer knows.
    clips = [replace(clip, text="one two") for clip in clips]
    nemo(here, clips)
    layouts.hf(here / "fleurs_de", clips)
    layouts.lhotse_cuts(here / "dev", clips)
    for folder in ("musan/noise", "RIRS_NOISES/real_rirs_isotropic_noises"):
        (here / folder).mkdir(parents=True)
        write_tone(here / folder / "a.wav", 0.2)
    shutil.copytree(here / "RIRS_NOISES" / "real_rirs_isotropic_noises", here / "rirs")

    in_place, noise = YAML
    in_place = in_place.replace("{0..15}", "{0..1}").replace(
        "text: transcription", "text: sentence"
    )
    data = yaml.safe_load(in_place)["data"]
    effects = re.search(r"`Degraded` with `(\[.*?\])`", PAGE)
    assert effects is not None
    dev = data["init_args"]["val"]["dev"]
    noisy = {"source": dev, "effects": yaml.safe_load(effects[1])}
    data["init_args"] |= yaml.safe_load(noise)
    data["init_args"]["val"]["noisy"] = {"class_path": "Degraded", "init_args": noisy}

    write_manifest(tmp_path)
    config = tiny_config(tmp_path, "SFT")
    data["init_args"]["batch_size"] = config["data"]["init_args"]["batch_size"]
    trained = run(tmp_path, config | {"data": data})
    assert trained.trainer.global_step == 2
    assert {"val/dev/wer", "val/noisy/wer"} <= set(trained.trainer.callback_metrics)


def test_the_recipe_of_the_page_runs(clips: list[Clip]) -> None:
    pytest.importorskip("lhotse", reason="needs the extra `lhotse`")
    from lhotse.bin.modes.cli_base import cli as lhotse

    layouts.ljspeech(Path("LJSpeech-1.1"), clips)
    (block,) = re.findall(r"```\n(pip install .*?)```", PAGE, re.DOTALL)
    install, prepare, convert = (shlex.split(line) for line in block.splitlines())
    assert install[2] == "lightning-audiorl[lhotse]"
    lhotse(prepare[1:], standalone_mode=False)
    cli.main(convert[1:])

    rows = read_manifest("rows.jsonl")
    assert [(row.id, row.text) for row in rows] == [(c.id, f"No. {c.text}") for c in clips]
    assert [row.segments[0].audio_filepath for row in rows] == [
        str(Path("LJSpeech-1.1", "wavs", clip.path.name).absolute()) for clip in clips
    ]
