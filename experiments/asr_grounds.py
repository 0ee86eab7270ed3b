"""Where the ASR data figures are made: pools to choose RL rows from, evaluation sets, models, rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from figure_runs import Spec, spec

_CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Ground:
    """A corpus with what is done on it.

    Args:
        name: of its folder and its tables.
        pool: the labelled rows that every RL set is chosen from.
        evaluation: sets by name; no training row may share audio with them.
        long_s: what counts as long here, in seconds.
        tokens_per_second: length cap of the rollout; evaluation gets twice as much.
        batch_size: prompts per RL step.
        data: names of the RL sets, in the order of the table.
        rewards: names of the reward mixes.
    """

    name: str
    pool: Spec
    evaluation: dict[str, Spec]
    long_s: float
    tokens_per_second: float
    batch_size: int
    data: tuple[str, ...]
    rewards: tuple[str, ...]
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def speech(self) -> Spec:
        """The rows of the pool that have words."""
        sources = self.pool["init_args"]["sources"]
        return spec(
            "data.JoinedRows",
            sources=[s for s in sources if not s["class_path"].endswith("NonSpeech")],
        )

    def policy(self, start: str) -> Spec:
        """The model that trains, from an exported folder."""
        finetune = {"encoder": False, "projector": True, "lm": "all"}
        return spec("models.FunAsrNanoPolicy", init_from=start, finetune=finetune)

    def greedy(self) -> Spec:
        """How the evaluation sets are decoded."""
        decoding = {
            "temperature": 0.0,
            "tokens_per_second": 2 * self.tokens_per_second,
            "min_cap": 16,
        }
        return {"greedy": {"decoding": decoding}}

    def sampling(self) -> Spec:
        """The rollout's decoding."""
        return {"temperature": 1.0, "tokens_per_second": self.tokens_per_second, "min_cap": 8}


R1 = spec("rewards.Accuracy", weight=1.0)
R2 = spec("rewards.Hallucination", weight=0.5)
R3 = spec("rewards.Keyword", weight=0.5)
REWARDS = {"R1": [R1], "R1+R2": [R1, R2], "R1+R2+R3": [R1, R2, R3]}


def _digits(
    part: str, words: tuple[int, int], rows: int, seed: int = 0, only: str | None = None
) -> Spec:
    speakers = {"only_speakers": [only]} if only else {"exclude_speakers": ["theo"]}
    return spec(
        "data.FsddDigits", part=part, num_words=list(words), num_rows=rows, seed=seed, **speakers
    )


def degraded(source: Spec, *effects: str) -> Spec:
    """The rows of a source with noise, reverberation or a telephone line between."""
    return spec("data.Degraded", source=source, effects=list(effects))


_MEDIUM = _digits("test", (8, 16), 60, seed=5)

FSDD = Ground(
    name="fsdd",
    pool=spec(
        "data.JoinedRows",
        sources=[
            _digits("train", (1, 7), 450, seed=3),
            _digits("train", (8, 16), 300, seed=3),
            _digits("train", (20, 40), 150, seed=3),
            spec("data.NonSpeech", num_rows=300, seed=3),
        ],
    ),
    evaluation={
        "short": _digits("test", (1, 7), 300),
        "medium": _digits("test", (8, 16), 120),
        "long": _digits("test", (20, 40), 50),
        "nonspeech": spec("data.NonSpeech", num_rows=150, seed=2),
        "new_speaker": _digits("test", (1, 7), 120, only="theo"),
        "noise": degraded(_MEDIUM, "noise?kind=pink&snr_db=5"),
        "reverb": degraded(_MEDIUM, "reverb?rt60_s=0.5"),
        "telephone": degraded(_MEDIUM, "telephone"),
        "espeak": spec("data.EspeakDigits", lang="en", num_rows=60),
        "mandarin": spec("data.EspeakDigits", lang="zh", num_rows=40),
    },
    long_s=8.0,
    tokens_per_second=4.0,
    batch_size=12,
    data=("D0", "D1", "D2", "H", "N", "mix"),
    rewards=("R1", "R1+R2"),
    columns={
        "short WER": ("short", "wer"),
        "medium WER": ("medium", "wer"),
        "long WER": ("long", "wer"),
        "long insertions": ("long", "insertion_rate"),
        "long hallucination": ("long", "hallucination_rate"),
        "text on non-speech": ("nonspeech", "nonspeech_text_rate"),
        "new speaker WER": ("new_speaker", "wer"),
        "noise WER": ("noise", "wer"),
        "reverb WER": ("reverb", "wer"),
        "telephone WER": ("telephone", "wer"),
        "espeak WER": ("espeak", "wer"),
        "Mandarin CER": ("mandarin", "wer"),
        "Mandarin insertions": ("mandarin", "insertion_rate"),
    },
)

ESPEAK = Ground(
    name="espeak",
    pool=spec(
        "data.JoinedRows",
        sources=[
            spec("data.EspeakCorpus", part="train", num_rows=400, seed=3),
            spec("data.EspeakCorpus", part="train", num_rows=150, num_sentences=[2, 4], seed=3),
            spec("data.EspeakCorpus", part="train", num_rows=40, min_duration_s=20, seed=3),
            spec("data.NonSpeech", num_rows=120, seed=3),
        ],
    ),
    evaluation={
        "short": spec("data.EspeakCorpus", part="test", num_rows=150),
        "medium": spec("data.EspeakCorpus", part="test", num_rows=50, num_sentences=[2, 4]),
        "long": spec("data.EspeakCorpus", part="test", num_rows=15, min_duration_s=20),
        "nonspeech": spec("data.NonSpeech", num_rows=100, seed=2),
    },
    long_s=20.0,
    tokens_per_second=9.0,
    batch_size=12,
    data=("D0", "D3"),
    rewards=("R1+R2", "R1+R2+R3"),
    columns={
        "short WER": ("short", "wer"),
        "short keyword F1": ("short", "keyword_f1"),
        "medium WER": ("medium", "wer"),
        "medium keyword F1": ("medium", "keyword_f1"),
        "long WER": ("long", "wer"),
        "long insertions": ("long", "insertion_rate"),
        "long hallucination": ("long", "hallucination_rate"),
        "long keyword F1": ("long", "keyword_f1"),
        "text on non-speech": ("nonspeech", "nonspeech_text_rate"),
    },
)

GROUNDS = {ground.name: ground for ground in (FSDD, ESPEAK)}


def builders(ground: Ground) -> dict[str, Spec]:
    """The paper's data sets and ours, by name; all of one size."""
    size = 200
    return {
        "D0": spec("data.subsets.RandomControl", num_rows=size),
        "D1": spec("data.subsets.Hard", num_rows=size, min_disagreement=0.05),
        "D2": spec("data.subsets.Length", num_rows=size, min_s=ground.long_s),
        "D3": spec("data.subsets.KeywordHeavy", num_rows=size, min_keywords=2),
        "H": spec("data.subsets.Hallucinating", num_rows=size, min_rate=0.25),
        "N": spec("data.subsets.Learnable", num_rows=size, low=0.0, high=1.0),
    }


NEEDS_HYPOTHESES = ("D1", "H", "N")
MIX = {"D0": 0.25, "D1": 0.25, "D2": 0.25, "H": 0.25}


def subsets(ground: Ground, data: str, hypotheses: Path) -> dict[str, Spec]:
    """What `AsrRLDataModule` builds for one row of the table."""
    shares = MIX if data == "mix" else {data: 1.0}
    made = builders(ground)
    return {
        name: {"source": ground.pool, "builder": made[name], "share": share}
        | ({"hypotheses": [str(hypotheses)]} if name in NEEDS_HYPOTHESES else {})
        for name, share in shares.items()
    }


def warm_start(name: str, seed: int, out: Path) -> str:
    """The folder of a ground's start: made by configs/fsdd/warm_start.yaml for each seed, or the shipped espeak one."""
    if name == "espeak":
        return str(_CONFIGS / "espeak" / "warm_start_model")
    return str(out / f"seed{seed}" / "warm_start" / "export")
