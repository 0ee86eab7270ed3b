"""A reward phase by a real Whisper: one clip at a time by transformers, the judge, and the judge with its window cut.

    python benchmarks/judge_window.py WHISPER_FOLDER SPEECH.jsonl --fsdd FSDD_FOLDER

The reward is `SpeechAccuracy` over 16 samples of 2 s: rows of the manifest that are at most 2 s long, the longest
first, followed by silence. "transformers" is what one writes first: for each clip features of 30 s and `generate`.
"judge" is `TransformersJudge` over all of them, "cut, N s" the same with `window_tail_s: N`. All in one process, in
turns, every second round in reverse order, after a clip each that does not count. CPU seconds of the process decide, as
others may use the machine.

How far transcripts agree is shown on the 16 samples, and on the first rows of the manifest, whole, and of FSDD's
connected digits: how many say what the whole window says (numbers read, spaces left out), and the CER of each way.
`--only` does a part. `--out` keeps what is done, so that a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.functional import resample
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.utils import logging

from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora.fsdd import FsddDigits
from lightning_audiorl.data.manifest.files import read_manifest
from lightning_audiorl.judges import JudgePanel, TransformersJudge
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.rewards import SpeechAccuracy
from lightning_audiorl.text.leaderboard import LeaderboardNormaliser
from lightning_audiorl.types import Hypothesis, Speech, Utterance

RATE_HZ = 16_000
SAMPLE_S = 2.0
GENERATE = {"language": "en", "task": "transcribe", "max_new_tokens": 64}
WHOLE = "judge"
PARTS = ("time", "speech", "digits")

Transcribe = Callable[[list[Hypothesis]], list[str]]


@dataclass
class Way:
    """A way to hear samples, made ready when it is first used."""

    name: str
    make: Callable[[], Transcribe]
    made: list[Transcribe] = field(default_factory=list)

    def transcribe(self, samples: list[Hypothesis]) -> list[str]:
        """What is heard; the first clip is heard once more before, which makes caches warm."""
        if not self.made:
            self.made.append(self.make())
            self.made[0](samples[:1])
        return self.made[0](samples)


@dataclass
class Kept:
    """Answers by key, in a file as soon as they are there."""

    path: Path | None
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            self.answers = json.loads(self.path.read_text())

    def once(self, key: str, answer: Callable[[], Any]) -> Any:
        """The answer of the key; made now if there is none."""
        if key not in self.answers:
            self.answers[key] = answer()
            print(f"{key} done", file=sys.stderr)
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(self.answers, indent=1) + "\n")
        return self.answers[key]


def speech_of(row: Utterance, waveform: Tensor) -> Hypothesis:
    """A sample for a row; its codes are of no account."""
    speech = Speech(waveform, RATE_HZ, torch.zeros(1, dtype=torch.long))
    return Hypothesis(row, "", 1, True, speech)


def read(row: Utterance) -> Hypothesis:
    """A row's recording as a sample."""
    return speech_of(row, read_audio(row, RATE_HZ))


def samples_of_one_length(rows: list[Utterance], num_samples: int) -> list[Hypothesis]:
    """So many rows of at most 2 s, the longest, followed by silence."""
    short = [row for row in rows if row.duration_s <= SAMPLE_S]
    short.sort(key=lambda row: -row.duration_s)
    if len(short) < num_samples:
        raise SystemExit(
            f"{len(short)} rows of at most {SAMPLE_S} s; want {num_samples}: take another manifest"
        )

    samples = []
    for row in short[:num_samples]:
        waveform = read_audio(row, RATE_HZ)
        missing = round(SAMPLE_S * RATE_HZ) - len(waveform)
        samples.append(speech_of(row, nn.functional.pad(waveform, (0, max(missing, 0)))))
    return samples


def by_transformers(folder: str) -> Transcribe:
    """Features and `generate` of one clip after the other."""
    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()

    @torch.no_grad()
    def transcribe(samples: list[Hypothesis]) -> list[str]:
        texts = []
        for sample in samples:
            assert sample.speech is not None
            rate_hz = processor.feature_extractor.sampling_rate
            clip = resample(sample.speech.waveform, RATE_HZ, rate_hz)
            inputs = processor(clip.numpy(), sampling_rate=rate_hz, return_tensors="pt")
            ids = model.generate(**inputs, do_sample=False, **GENERATE)
            texts += processor.batch_decode(ids, skip_special_tokens=True)
        return texts

    return transcribe


def by_judge(folder: str, batch_size: int, tail_s: float | None) -> Transcribe:
    """A reward phase; the transcripts are those on the panel."""
    judge = TransformersJudge(
        folder,
        "seq2seq",
        name="whisper",
        generate=GENERATE,
        batch_size=batch_size,
        window_tail_s=tail_s,
    )
    reward = SpeechAccuracy(judge, normalisers={"en": LeaderboardNormaliser()})

    def transcribe(samples: list[Hypothesis]) -> list[str]:
        panel = JudgePanel({"whisper": judge})
        reward.score_with(samples, panel)
        (heard,) = panel.with_transcripts([samples])
        return [sample.transcripts["whisper"] or "" for sample in heard]

    return transcribe


def timed(
    ways: list[Way], samples: list[Hypothesis], rounds: int, kept: Kept
) -> dict[str, dict[str, Any]]:
    """CPU seconds of each round by way, and what was heard."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    heard = {}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            found = kept.once(f"round {number}, {way.name}", lambda way=way: measured(way, samples))
            seconds[way.name].append(found["seconds"])
            heard[way.name] = found["heard"]
    return {"seconds": seconds, "heard": heard}


def measured(way: Way, samples: list[Hypothesis]) -> dict[str, Any]:
    """CPU seconds of a reward phase, and what was heard."""
    if not way.made:
        way.transcribe(samples[:1])
    start = time.process_time()
    heard = way.transcribe(samples)
    return {"seconds": time.process_time() - start, "heard": heard}


def heard_in_parts(way: Way, name: str, clips: list[Hypothesis], kept: Kept) -> list[str]:
    """What is heard of a set, eight clips after the other."""
    texts: list[str] = []
    for first in range(0, len(clips), 8):
        some = clips[first : first + 8]
        texts += kept.once(
            f"{name}, {way.name}, from {first}", lambda some=some: way.transcribe(some)
        )
    return texts


def same(one: str, other: str) -> bool:
    """Whether two transcripts say the same; where words end cannot be heard."""
    normaliser = LeaderboardNormaliser()
    return normaliser.normalise(one).replace(" ", "") == normaliser.normalise(other).replace(
        " ", ""
    )


def cer(samples: list[Hypothesis], heard: list[str]) -> float:
    """Of all samples together."""
    normaliser = LeaderboardNormaliser()
    errors = 0
    characters = 0
    for sample, text in zip(samples, heard, strict=True):
        wrong, spoken = character_errors(sample.row, text, normaliser)
        errors += wrong
        characters += spoken
    return errors / characters


def time_table(found: dict[str, Any]) -> None:
    """Medians, with the smallest and largest."""
    seconds = found["seconds"]
    base = statistics.median(seconds["transformers"])
    whole = statistics.median(seconds[WHOLE])
    print("\n| way | CPU s | of transformers | of the judge | transcripts as by transformers |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{median:.2f} [{min(values):.2f}, {max(values):.2f}]"
        texts = zip(found["heard"][name], found["heard"]["transformers"], strict=True)
        equal = sum(same(one, other) for one, other in texts)
        print(
            f"| {name} | {spread} | 1/{base / median:.2f} | 1/{whole / median:.2f} | "
            f"{equal} of {len(found['heard'][name])} |"
        )


def agreement_table(title: str, samples: list[Hypothesis], heard: dict[str, list[str]]) -> None:
    """How far each way agrees with the whole window."""
    print(f"\n{title}: {len(samples)} clips\n")
    print("| way | transcripts as by the whole window | CER, % |")
    print("| --- | --- | --- |")
    for name, texts in heard.items():
        equal = sum(same(one, other) for one, other in zip(texts, heard[WHOLE], strict=True))
        print(f"| {name} | {equal} of {len(texts)} | {100 * cer(samples, texts):.1f} |")

    for name, texts in heard.items():
        for sample, text, whole in zip(samples, texts, heard[WHOLE], strict=True):
            if not same(text, whole):
                print(f"  {name}: {sample.row.text!r} whole {whole!r} cut {text!r}")


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a Whisper checkpoint")
    parser.add_argument("speech", help="JSONL manifest of English speech")
    parser.add_argument("--fsdd", help="folder of the Free Spoken Digit Dataset; default none")
    parser.add_argument("--samples", type=int, default=16, help="timed; default 16")
    parser.add_argument(
        "--batch-size", type=int, default=4, help="of the judge with the whole window; default 4"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--rows", type=int, default=50, help="of each set, compared; default 50")
    parser.add_argument(
        "--tails", nargs="*", type=float, default=[0.5, 1.0], help="seconds of silence"
    )
    parser.add_argument("--out", type=Path, help="file of what is done; default none")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS, help="default all")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default 1")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = arguments()
    # Of every call, that both a greatest length and a number of tokens are set.
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    rows = read_manifest(args.speech)

    ways = [
        Way("transformers", lambda: by_transformers(args.model)),
        Way(WHOLE, lambda: by_judge(args.model, args.batch_size, None)),
    ]
    for tail_s in args.tails:
        make = partial(by_judge, args.model, args.samples, tail_s)
        ways.append(Way(f"cut, {tail_s:g} s", make))

    kept = Kept(args.out)
    if "time" in args.only:
        samples = samples_of_one_length(rows, args.samples)
        found = timed(ways, samples, args.rounds, kept)
        time_table(found)
        heard = {way.name: found["heard"][way.name] for way in ways[1:]}
        agreement_table("The samples", samples, heard)

    sets = {}
    if "speech" in args.only:
        sets[Path(args.speech).stem] = [read(row) for row in rows[: args.rows]]
    if "digits" in args.only and args.fsdd:
        digits = FsddDigits(args.fsdd, "test", num_words=(1, 7), num_rows=args.rows)
        sets["digits"] = [read(digits[i]) for i in range(args.rows)]
    for name, clips in sets.items():
        heard = {way.name: heard_in_parts(way, name, clips, kept) for way in ways[1:]}
        agreement_table(name, clips, heard)


if __name__ == "__main__":
    main()
