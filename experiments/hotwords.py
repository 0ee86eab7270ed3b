"""Hotwords in the prompt: keyword recall with the right list, with a wrong one and with none.

    python experiments/hotwords.py --out runs/hotwords [--real REAL]

A tiny Fun-ASR-Nano (configs/espeak/warm_start_model) that has never seen a list learns from sentences in noise, with
lists and, as a control, without, by SFT; one more arm goes on by GRPO with R1 and R3. Six names are in no training row
and in no training list: each arm is measured on rows with names that it trained on, and on rows with those six.

REAL holds ``whisper-base`` in Hugging Face layout and ``asterisk/{train,dev,test}.jsonl``: Whisper is not trained,
its prompt alone changes. Without it the part is left out.

What was done is kept in ``<out>``, so a command that was killed goes on. ``--write-docs`` writes docs/hotwords.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from figure_runs import Spec, audiorl, spec
from hotwords_page import page

from lightning_audiorl.data import (
    AsrDataModule,
    Degraded,
    EspeakCorpus,
    Hotwords,
    RowSource,
    WithHotwords,
    duration_batches,
    read_manifest,
    write_manifest,
)
from lightning_audiorl.data.corpora.espeak import NAMES
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.metrics import AsrMetrics
from lightning_audiorl.models import FunAsrNanoPolicy, Policy, SampleKey, WhisperPolicy
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.types import Decoding, Utterance

ROOT = Path(__file__).parents[1]
START = ROOT / "configs" / "espeak" / "warm_start_model"
DOCS = ROOT / "docs" / "hotwords.md"

#: In no training row and in no training list.
HELD_OUT = ("emma", "lucas", "oscar", "dublin", "cairo", "lima")
#: Noise over test sentences, and over those of training, in dB: names can no longer be told apart by ear alone.
SNR_DB = -5
TRAIN_SNR_DB = (-15, 0)
STEPS = {"sft": 500, "grpo": 40}
#: Words that occur so often in the real prompts' texts at most are rare.
RARE = 3

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'keywords' %} {{ part['keywords'] | join(' ') }} {% endif %}"
    "{% if part['type'] == 'audio' %}<|object_ref_start|>{% endif %}{% endfor %}<|im_start|>{% endfor %}"
)


class Picked(RowSource):
    """Rows that are held in memory."""

    def __init__(self, rows: Sequence[Utterance]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.rows[index]


# --- what is measured


def lists_of(distractors: Path, size: int, long: int = 0) -> dict[str, Hotwords | None]:
    """The lists that each set is decoded with, by what they are called."""
    file = str(distractors)
    lists: dict[str, Hotwords | None] = {
        "none": None,
        "right": Hotwords(),
        f"right, {size} more": Hotwords([size], file),
        "wrong": Hotwords([size], file, share_wrong=1.0),
    }
    if long:
        lists[f"right, {long} more"] = Hotwords([long], file)
    return lists


@torch.no_grad()
def measured(policy: Policy, rows: Sequence[Utterance], batch_size: int = 16) -> dict[str, float]:
    """Metrics of greedy hypotheses, and the hypotheses."""
    loader = AsrDataModule()
    metric = AsrMetrics()
    decoding = Decoding(temperature=0.0)
    texts = {}
    with policy.evaluating():
        batches = duration_batches([row.duration_s for row in rows], 1e9, batch_size)
        for index in batches:
            batch = loader.load([rows[number] for number in index])
            context = policy.encode(batch)
            rollout = policy.sample(context, 1, decoding, SampleKey(0, 0, "evaluate"))
            for group in hypotheses(policy, batch, rollout, context):
                metric.update(group)
                texts[group[0].row.id] = (group[0].text, group[0].prompt)
    found = {name: float(value) for name, value in metric.compute().items()}
    # Under every list the same keywords are counted.
    kept = ("keyword_recall", "keyword_precision", "hotword_false_alarm_rate", "wer")
    example = next(iter(texts.values()))
    return {name: found[name] for name in kept if name in found} | {"example": example}  # type: ignore[dict-item]


def measure(
    policy: Policy, sets: dict[str, RowSource], lists: dict[str, Hotwords | None], file: Path
) -> None:
    """Decode each set with each list, and keep the metrics; what is there is not decoded again."""
    done: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    for name, rows in sets.items():
        of_set = done.setdefault(name, {"rows": len(rows)})
        of_set["keywords"] = sum(len(row.keywords) for row in rows)
        for label, hotwords in lists.items():
            if label in of_set:
                continue
            listed = rows if hotwords is None else WithHotwords(rows, hotwords)
            of_set[label] = measured(policy, list(listed))
            print(f"{file.stem}, {name}, {label}: {of_set[label]}", flush=True)
            file.write_text(json.dumps(done, indent=1))


# --- the tiny model


def tiny_rows(num_rows: int) -> dict[str, RowSource]:
    """Test sentences in noise: those whose names are all of training, and those with a held-out one."""
    noise = f"noise?kind=white&snr_db={SNR_DB}"
    rows = list(Degraded(EspeakCorpus("test", num_rows=num_rows, num_words=(3, 5)), [noise]))
    known = [row for row in rows if row.keywords and not set(row.keywords) & set(HELD_OUT)]
    held = []
    for row in rows:
        names = tuple(name for name in row.keywords if name in HELD_OUT)
        if names:
            held.append(replace(row, keywords=names))
    return {"trained names": Picked(known), "held-out names": Picked(held)}


def prepare(out: Path) -> None:
    """Training rows without the held-out names, files of distractors, and the start with a place for lists."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "trained.txt").write_text("\n".join(n for n in NAMES if n not in HELD_OUT))
    (out / "names.txt").write_text("\n".join(NAMES))

    if not (out / "train.jsonl").is_file():
        rows = EspeakCorpus("train", num_rows=2500, num_words=(3, 5), seed=3)
        kept = [row for row in rows if row.keywords and not set(row.keywords) & set(HELD_OUT)]
        write_manifest(kept, str(out / "train.jsonl"))

    start = out / "start"
    if not start.is_dir():
        shutil.copytree(START, start)
        (start / "chat_template.jinja").write_text(_TEMPLATE)


def training(out: Path, arm: str, seed: int) -> Spec:
    """Settings of ``audiorl fit`` for an arm."""
    lists = {
        "sizes": [0, 1, 3],
        "distractors": str(out / "trained.txt"),
        "share_wrong": 0.1,
        "share_without": 0.2,
    }
    data = {
        "batch_size": 16,
        "seed": seed,
        "train": str(out / "train.jsonl"),
        "augment": {"noise_snr_db": list(TRAIN_SNR_DB), "noise_probability": 1.0},
    }
    if arm != "sft without lists":
        data["hotwords"] = lists

    model: dict[str, Any] = {"log_every_n_steps": 20}
    if arm == "grpo with lists":
        start = out / f"sft_with_lists_{seed}" / "export"
        model |= {"num_steps": STEPS["grpo"], "optim": {"lr": 5.0e-5, "warmup_steps": 5}}
        model |= {"group_size": 8, "beta": 0.04, "decoding": {"tokens_per_second": 9.0}}
        keyword = spec("rewards.Keyword", weight=0.5, hotwords=True)
        model["rewards"] = {"rewards": [spec("rewards.Accuracy"), keyword]}
    else:
        start = out / "start"
        model |= {"num_steps": STEPS["sft"], "optim": {"lr": 6.0e-4, "warmup_steps": 20}}

    model["policy"] = spec("models.FunAsrNanoPolicy", init_from=str(start))
    return {
        "seed_everything": seed,
        "trainer": {"accelerator": "cpu", "default_root_dir": str(folder_of(out, arm, seed))},
        "model": {"class_path": "GRPO" if arm == "grpo with lists" else "SFT", "init_args": model},
        "data": spec("data.AsrDataModule", **data),
        "report": {"enabled": False},
    }


ARMS = ("sft without lists", "sft with lists", "grpo with lists")


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Of an arm's run."""
    return out / f"{arm.replace(' ', '_')}_{seed}"


def tiny(out: Path, seeds: Sequence[int], num_rows: int) -> None:
    """Train and measure every arm."""
    prepare(out)
    sets = tiny_rows(num_rows)
    lists = lists_of(out / "names.txt", 4)
    measure(FunAsrNanoPolicy(str(out / "start")), sets, lists, out / "start.json")
    for seed in seeds:
        for arm in ARMS:
            folder = folder_of(out, arm, seed)
            audiorl("fit", training(out, arm, seed), folder, resume=True)
            policy = FunAsrNanoPolicy(str(folder / "export"))
            measure(policy, sets, lists, out / f"{folder.name}.json")


# --- Whisper


def rare_words(texts: Sequence[str]) -> Counter[str]:
    """How often each word of five letters or more occurs."""
    return Counter(word for text in texts for word in _words(text))


def _words(text: str) -> Iterator[str]:
    for word in re.findall(r"[A-Za-z]+", text):
        if len(word) >= 5:
            yield word.lower()


def whisper_rows(real: Path, out: Path) -> dict[str, RowSource]:
    """Test prompts with rare words, as they are and in noise; the others' rare words are the distractors."""
    parts = {
        part: read_manifest(str(real / "asterisk" / f"{part}.jsonl"))
        for part in ("train", "dev", "test")
    }
    counts = rare_words([row.text for rows in parts.values() for row in rows])

    rows = []
    for row in parts["test"]:
        words = tuple(dict.fromkeys(word for word in _words(row.text) if counts[word] <= RARE))
        if words and len(row.text.split()) >= 3:
            rows.append(replace(row, keywords=words))
    others = sorted(word for word, count in counts.items() if count <= RARE)
    (out / "rare.txt").write_text("\n".join(others))

    noise = "noise?kind=pink&snr_db=0"
    return {"as recorded": Picked(rows), "in pink noise, 0 dB": Degraded(Picked(rows), [noise])}


def whisper(real: Path, out: Path) -> None:
    """Measure Whisper with each kind of list."""
    out.mkdir(parents=True, exist_ok=True)
    sets = whisper_rows(real, out)
    policy = WhisperPolicy(str(real / "whisper-base"), encoder_cache=EncoderCache())
    lists = lists_of(out / "rare.txt", 10, long=100)
    measure(policy, sets, lists, out / "whisper.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/hotwords"))
    parser.add_argument("--real", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--num-rows", type=int, default=600)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()

    started = time.process_time()
    out = given.out.absolute()
    if given.real:
        whisper(given.real, out)
    tiny(out, given.seeds, given.num_rows)
    print(f"{time.process_time() - started:.0f} processor seconds, training apart")
    if given.write_docs:
        text = page(out, given.seeds, STEPS, SNR_DB, TRAIN_SNR_DB, HELD_OUT)
        DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
