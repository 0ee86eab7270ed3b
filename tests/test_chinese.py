"""Chinese from end to end: the shipped miniatures know every character, and learn and are measured in characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl.data.corpora.espeak import CHINESE, EspeakCorpus
from lightning_audiorl.data.corpora.tts import EspeakSpeech
from lightning_audiorl.judges.training.ctc import character_ids
from lightning_audiorl.models.tiny import TinySpeechLM
from lightning_audiorl.models.tts.templates import PlainTemplate
from lightning_audiorl.rewards import Accuracy, Hallucination, Keyword, LengthError
from lightning_audiorl.types import Hypothesis, Utterance
from tests.command import TINY, class_of, run

CONFIGS = Path(__file__).parents[1] / "configs"
RECOGNITION = ("warm_start", "grpo", "control")
SYNTHESIS = (
    "codec",
    "asr_judge",
    "held_out_asr_judge",
    "token2text",
    "sft",
    "grpo",
    "grpo_diffro",
)


def shipped(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return settings


def sources(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of all row sources of a configuration."""
    data = settings["data"]["init_args"]
    nodes = [entry["source"] for entry in data["train"]] + list(data["val"].values())
    return [node["init_args"] for node in nodes]


@pytest.mark.parametrize(
    "name",
    [
        *(f"espeak/zh/{name}" for name in RECOGNITION),
        *(f"tts/espeak_zh/{name}" for name in SYNTHESIS),
    ],
)
def test_every_row_is_chinese_and_every_character_is_known(name: str) -> None:
    settings = shipped(name)
    assert {arguments["lang"] for arguments in sources(settings)} == {"zh"}
    model = settings["model"]["init_args"]
    policy = model.get("policy", {}).get("init_args", {})
    for node in (model.get("network"), policy.get("init_from")):
        if isinstance(node, dict):
            known = node["init_args"].get("words") or node["init_args"]["characters"]
            assert "".join(known) == CHINESE.characters


def hypotheses(row: Utterance, *texts: str) -> list[Hypothesis]:
    return [Hypothesis(row, text) for text in texts]


def test_rewards_count_characters_and_names() -> None:
    row = Utterance("r", (), "王芳星期二三点到西安", 3.0, lang="zh", keywords=("王芳", "西安"))
    right, other_name, shorter, loop, invented = hypotheses(
        row,
        "王芳星期二，三点到西安。",
        "王方星期二三点到西安",
        "王芳星期二三点",
        "王芳王芳王芳王芳王芳到西安",
        "请把红色的书送给小明和请把黑色的桌子放在花园和大厅",
    )
    assert Accuracy().score([right, other_name, shorter]) == pytest.approx([1.0, 0.9, 0.7])
    keyword = Keyword()
    scores = keyword.score([right, other_name, shorter, invented])
    assert scores[0] == max(scores) > scores[1]
    assert scores[1] == scores[2] > scores[3]
    paid = Hallucination().score([right, other_name, loop, invented])
    assert paid[0] == paid[1] > max(paid[2:])
    lengths = LengthError().score([right, shorter])
    assert lengths[0] > lengths[1]

    # Nothing is said: any character counts.
    silent = Utterance("s", (), "", 3.0, lang="zh")
    empty, spoken = Hallucination().score(hypotheses(silent, "", "明天去北京"))
    assert empty > spoken


def test_a_speaking_model_and_its_judges_read_characters(tmp_path: Path) -> None:
    row = EspeakSpeech("dev", num_rows=1, num_words=(3, 4), lang="zh", cache_dir=str(tmp_path))[0]
    spec = TinySpeechLM(characters=CHINESE.characters, width=16, layers=1, heads=2, num_codes=4)
    _, tokenizer = spec.build()
    ids = PlainTemplate().prompt_ids(tokenizer, row.text, row.extra["prompt_text"], [3, 0])
    assert tokenizer.unk_token_id not in ids
    assert len(ids) == 1 + len(row.extra["prompt_text"]) + 1 + 2 + 1 + len(row.text) + 1
    targets = character_ids(row, CHINESE.characters)
    assert "".join(CHINESE.characters[number - 1] for number in targets) == row.text


def quick(name: str, folder: Path, **model: Any) -> dict[str, Any]:
    """The shipped settings, in a folder of their own."""
    settings = shipped(name)
    settings["trainer"]["default_root_dir"] = str(folder / name)
    settings["trainer"]["logger"] = False
    settings["report"] = {"enabled": False}
    settings["progress"] = {"line_every_s": 1000.0}
    settings["model"]["init_args"] |= model
    return settings


def test_a_step_of_the_shipped_grpo(tmp_path: Path) -> None:
    tiny = class_of("models.TinyFunAsrNano", words=list(CHINESE.characters), **TINY)
    settings = quick("espeak/zh/grpo", tmp_path, num_steps=1, group_size=4)
    settings["model"]["init_args"]["policy"]["init_args"]["init_from"] = tiny
    settings["export"] = {"enabled": False}
    few = {"max_new_tokens": 3}
    settings["model"]["init_args"] |= {
        "decoding": few,
        "eval_decodings": {"greedy": {"decoding": {"temperature": 0.0} | few}},
    }
    settings["data"]["init_args"]["batch_size"] = 4
    for arguments in sources(settings):
        arguments["num_rows"] = 4
    # Speech alone: all that it writes of noise is as wrong, and groups of equal rewards teach nothing.
    settings["data"]["init_args"]["train"][:] = settings["data"]["init_args"]["train"][:1]
    settings["data"]["init_args"]["train"][0]["share"] = 1.0
    module = run(tmp_path, settings).model
    assert module.rl_step == 1
    assert module.step_metrics["reward_failures/keyword"] == 0
    short = module.evaluations[0]["results"]["short"]
    # A model that knows nothing writes whole characters, of which hardly one is right.
    assert short["cer"] == short["wer"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_miniature_learns_to_write_chinese(tmp_path: Path) -> None:
    """A part of the shipped warm start, on its shortest sentences, and ten steps of GRPO from it: some minutes."""
    start = quick("espeak/zh/warm_start", tmp_path, num_steps=260)
    data = start["data"]["init_args"]
    # The first source has all of the batch until step 400.
    data["train"] = data["train"][:1]
    data["train"][0] |= {"share": 1.0}
    short = {"lang": "zh", "part": "dev", "num_rows": 60, "num_words": [3, 4]}
    data["val"] = {"short": class_of("data.EspeakCorpus", **short)}
    warm = run(tmp_path, start).model
    before, after = (evaluation["results"]["short"] for evaluation in warm.evaluations)
    assert before["cer"] > 0.9
    assert after["cer"] < 0.6
    assert after["keyword_f1"] > before["keyword_f1"] + 0.2
    assert after["hallucination_rate"] < before["hallucination_rate"]

    folder = str(tmp_path / "espeak/zh/warm_start/export")
    settings = quick("espeak/zh/grpo", tmp_path, num_steps=10)
    settings["model"]["init_args"]["policy"]["init_args"]["init_from"] = folder
    settings["data"]["init_args"]["val"] = {
        "short": data["val"]["short"],
        "nonspeech": class_of("data.NonSpeech", lang="zh", num_rows=21, seed=2),
    }
    trained = run(tmp_path, settings).model
    first, last = (evaluation["results"] for evaluation in trained.evaluations)
    # The export is what was trained, and RL has not spoilt it.
    assert first["short"]["cer"] == pytest.approx(after["cer"], abs=1e-6)
    assert last["short"]["cer"] < first["short"]["cer"] + 0.1
    assert 0 < trained.step_metrics["reward/keyword/mean"] <= 1
    # Noise was never heard before: what the start writes for it, it writes less of.
    assert first["nonspeech"]["nonspeech_text_rate"] > 0
    assert last["nonspeech"]["nonspeech_text_rate"] <= first["nonspeech"]["nonspeech_text_rate"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_of_the_speaking_miniature_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few steps of each: no part refuses Chinese, and what the end measures are characters."""
    monkeypatch.chdir(tmp_path)
    for name in SYNTHESIS:
        settings = shipped(f"tts/espeak_zh/{name}")
        settings["report"] = {"enabled": False}
        settings["model"]["init_args"]["num_steps"] = 2
        settings["data"]["init_args"]["batch_size"] = 4
        for arguments in sources(settings):
            arguments["num_rows"] = 12
        module = run(tmp_path, settings).model
    results = module.evaluations[-1]["results"]["dev"]
    assert results["cer"] > 0
    assert results["judge_failure_rate"] == 0
    rows = EspeakCorpus("dev", num_rows=12, num_words=(3, 4), lang="zh")
    characters = sum(len(row.text) for row in rows) / len(rows)
    # Tokens per unit are per character: a sentence of a second and more has 25 or more of them.
    assert results["tokens_per_unit"] < 100 / characters * 4
