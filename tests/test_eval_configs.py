"""configs/eval as they are, but for the checkpoints: sets in their own layouts become manifests, and are measured."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jiwer
import numpy as np
import pytest
import yaml

from lightning_audiorl import cli
from lightning_audiorl.metrics.transcripts import error_rate
from lightning_audiorl.text import (
    BasicNormaliser,
    CharacterNormaliser,
    LeaderboardNormaliser,
    Normaliser,
    SeedTtsNormaliser,
    normaliser_for,
)
from lightning_audiorl.types import Utterance
from tests.command import TINY, class_of, run
from tests.data import eval_sets, layouts
from tests.data.eval_sets import CHINESE, ENGLISH
from tests.data.layouts import Clip, make_clips
from tests.models.test_whisper_export import whisper_start
from tests.test_llasa_configs import BUILDERS, llasa, wavlm, whisper, xcodec2

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "eval"
PAGE = ROOT / "docs" / "evaluation.md"
RECOGNITION = ("librispeech", "librispeech_biasing", "common_voice", "aishell1", "fleurs")
SYNTHESIS = ("seedtts_en", "seedtts_zh", "cv3eval", "cv3eval_zh")
#: Others like them are measured in every run.
SLOW = ("librispeech", "seedtts_zh", "cv3eval")
SHORT = {"min_cap": 24, "max_new_tokens": 24}
#: FLEURS' own names.
FOLDERS = {"en": "en_us", "de": "de_de", "ko": "ko_kr", "zh": "cmn_hans_cn", "ja": "ja_jp"}
# A kind, what is given to the command, and its options.
Written = tuple[str, Path, tuple[str, ...]]


def librispeech(root: Path, name: str, clips: list[Clip]) -> Written:
    return "librispeech", layouts.librispeech(root, clips), ()


def biased(root: Path, name: str, clips: list[Clip]) -> Written:
    source = layouts.librispeech(root, clips)
    lists = eval_sets.biasing(root / "lists.tsv", clips, ["york", "ghent"])
    # The models of these tests have no place for them.
    return "librispeech", source, ("--biasing", str(lists), "--hotwords", "false")


def common_voice(root: Path, name: str, clips: list[Clip]) -> Written:
    source = layouts.commonvoice(root, clips)
    table = source / "train.tsv"
    table.write_text(table.read_text().replace("\ten\n", f"\t{name}\n"))
    return "commonvoice", source, ("--split", "train")


def aishell(root: Path, name: str, clips: list[Clip]) -> Written:
    return "aishell", layouts.aishell(root, clips), ("--split", "train")


def fleurs(root: Path, name: str, clips: list[Clip]) -> Written:
    source = layouts.fleurs(root, clips)
    return "fleurs", source.rename(source.with_name(FOLDERS[name])), ("--split", "test")


def seedtts(root: Path, name: str, clips: list[Clip]) -> Written:
    lang = name.partition("_")[0]
    texts = CHINESE if lang == "zh" else ENGLISH
    return "seedtts", eval_sets.seedtts(root, lang, texts), ()


def cv3eval(root: Path, name: str, clips: list[Clip]) -> Written:
    texts = CHINESE if name.endswith("zh") else ENGLISH
    return "cv3eval", eval_sets.cv3eval(root, name, texts), ()


SETS: dict[str, Callable[[Path, str, list[Clip]], Written]] = {
    "librispeech": librispeech,
    "librispeech_biasing": biased,
    "common_voice": common_voice,
    "aishell1": aishell,
    "fleurs": fleurs,
    "seedtts_en": seedtts,
    "seedtts_zh": seedtts,
    "cv3eval": cv3eval,
    "cv3eval_zh": cv3eval,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"), 4)


@pytest.fixture(scope="module")
def whisper_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Whisper with timestamps, which long clips want, and with the languages of the sets."""
    folder = whisper_start(tmp_path_factory.mktemp("whisper"), max_length=16)
    path = Path(folder) / "generation_config.json"
    settings = json.loads(path.read_text())
    languages = settings["lang_to_id"]
    for ours, theirs in (("ko", "th"), ("fr", "yue")):
        languages[f"<|{ours}|>"] = languages.pop(f"<|{theirs}|>")
    path.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the configurations of synthesis name -> tiny ones in folders."""
    folder = tmp_path_factory.mktemp("models")
    builders = {
        "HKUSTAudio/Llasa-1B": llasa,
        "hf-audio/xcodec2": xcodec2,
        "openai/whisper-large-v3": whisper,
        "microsoft/wavlm-base-plus-sv": wavlm,
    }
    assert set(builders) - {"openai/whisper-large-v3"} <= set(BUILDERS)
    found = {}
    for number, (source, build) in enumerate(builders.items()):
        (folder / str(number)).mkdir()
        found[source] = build(folder / str(number))
    return found


class _Model:
    """Stands for FunASR's: says the same of each clip, with a space between the characters, as Paraformer does."""

    def __init__(self, model: str, **settings: Any) -> None:
        self.model = model

    def generate(self, input: np.ndarray, **settings: Any) -> list[dict[str, str]]:
        assert self.model == "paraformer-zh"
        assert input.dtype == np.float32
        return [{"key": "a", "text": "三 一"}]


@pytest.fixture
def paraformer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The class that the page spells out, over a model that stands for FunASR's."""
    funasr = ModuleType("funasr")
    funasr.AutoModel = _Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "funasr", funasr)

    (code,) = re.findall(r"```python\n(# my_judges\.py.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("my_judges")
    monkeypatch.setitem(sys.modules, "my_judges", module)
    exec(compile(code, "my_judges.py", "exec"), module.__dict__)
    return module


def shipped(name: str, folder: Path, clips: list[Clip]) -> dict[str, Any]:
    """The configuration, its sets written in their layouts and turned into manifests by the command."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    sets = config["data"]["init_args"]["val"]
    for key in sets:
        root = folder / key
        root.mkdir()
        kind, source, options = SETS[name](root, key, clips)
        out = str(folder / f"{key}.jsonl")
        cli.main(["manifest", str(source), "--kind", kind, "--out", out, *options])
        sets[key] = out

    config["trainer"] |= {
        "accelerator": "cpu",
        "precision": "32-true",
        "default_root_dir": str(folder / "run"),
    }
    config["data"]["init_args"]["num_workers"] = 0
    return config


def in_turn(names: Sequence[str]) -> list[Any]:
    """The names, the slow ones marked."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


def normaliser_of(module: Any, row: Utterance) -> Normaliser:
    return normaliser_for(row.lang, module.evaluation.normalisers)


def test_every_configuration_is_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*RECOGNITION, *SYNTHESIS}


@pytest.mark.parametrize("name", in_turn(RECOGNITION))
def test_recognition(name: str, tmp_path: Path, clips: list[Clip], whisper_checkpoint: str) -> None:
    config = shipped(name, tmp_path, clips)
    policy = config["model"]["init_args"]["policy"]
    tiny: Any = whisper_checkpoint
    if policy["class_path"] != "WhisperPolicy":
        tiny = class_of("models.TinyFunAsrNano", **TINY)
    policy["init_args"]["init_from"] = tiny
    short = {"greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 5}}}
    config["model"]["init_args"]["eval_decodings"] = short
    module: Any = run(tmp_path, config, command="validate").model

    results = module.evaluations[-1]["results"]
    assert set(results) == set(config["data"]["init_args"]["val"])
    kinds = set()
    for key, metrics in results.items():
        said = [group[0] for group in module.last_hypotheses[key]]
        assert len(said) == len(clips)
        texts: list[tuple[str, str]] = []
        for one in said:
            normaliser = normaliser_of(module, one.row)
            kinds.add(type(normaliser))
            units = [normaliser.units(text) for text in (one.row.text, one.text)]
            texts.append((" ".join(units[0]), " ".join(units[1])))
        wer = jiwer.wer([one for one, _ in texts], [other for _, other in texts])
        assert metrics["wer"] == pytest.approx(wer)
        assert ("b_wer" in metrics) == (name == "librispeech_biasing")
    expected: dict[str, type[Normaliser]] = {
        "librispeech": LeaderboardNormaliser,
        "aishell1": CharacterNormaliser,
        "fleurs": BasicNormaliser,
        "common_voice": BasicNormaliser,
    }
    assert expected.get(name, type(normaliser_for("en"))) in kinds


@pytest.mark.parametrize("name", in_turn(SYNTHESIS))
def test_synthesis(
    name: str, tmp_path: Path, clips: list[Clip], places: dict[str, str], paraformer: ModuleType
) -> None:
    config = shipped(name, tmp_path, clips)
    text = yaml.safe_dump(config)
    for source, place in places.items():
        text = text.replace(source, place)
    config = yaml.safe_load(text)
    config["model"]["init_args"]["eval_decodings"] = {"sampled": {"decoding": SHORT}}
    module: Any = run(tmp_path, config, command="validate").model

    results = module.evaluations[-1]["results"]
    assert set(results) == set(config["data"]["init_args"]["val"])
    for key, metrics in results.items():
        assert metrics["judge_failure_rate"] == 0
        assert math.isfinite(metrics["similarity"])
        assert math.isfinite(metrics["utterance_wer"])

        rates = []
        for (one,) in module.last_hypotheses[key]:
            normaliser = normaliser_of(module, one.row)
            assert isinstance(normaliser, SeedTtsNormaliser)
            assert normaliser.unit == ("char" if one.row.lang in ("zh", "ja", "ko") else "word")
            if name.endswith("zh"):
                rates.append(error_rate(one.row, "三 一", normaliser))
        if rates:
            assert metrics["utterance_wer"] == pytest.approx(sum(rates) / len(rates))
