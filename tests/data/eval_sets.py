"""Tiny test sets in the layouts in which they are published: texts to be spoken, and biasing lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.data.fakes import write_tone
from tests.data.layouts import Clip

#: Prompt's seconds, prompt's text, text to be spoken.
ENGLISH = (
    (0.5, "one two", "three"),
    (0.75, "four.", "two three, one"),
    (0.6, "three", "one"),
)
CHINESE = ((0.5, "一二", "三"), (0.75, "四。", "二三一"), (0.6, "三", "一"))
Texts = Sequence[tuple[float, str, str]]


def seedtts(root: Path, lang: str, texts: Texts, targets: bool = False) -> Path:
    """``<root>/<lang>/meta.lst`` with its prompts; gives the list."""
    folder = root / lang
    (folder / "prompt-wavs").mkdir(parents=True)
    lines = []
    for number, (seconds, prompt_text, text) in enumerate(texts):
        name = f"prompt-wavs/{number}.wav"
        write_tone(folder / name, seconds, hz=200.0 + 100 * number)
        cells = [f"{number}-a", prompt_text, name, text]
        if targets:
            target = f"wavs/{number}.wav"
            (folder / "wavs").mkdir(exist_ok=True)
            write_tone(folder / target, seconds + 0.1, hz=300.0)
            cells.append(target)
        lines.append("|".join(cells) + "\n")
    path = folder / "meta.lst"
    path.write_text("".join(lines))
    return path


def cv3eval(root: Path, name: str, texts: Texts) -> Path:
    """``<root>/data/zero_shot/<name>`` with its three lists; gives the folder."""
    place = f"data/zero_shot/{name}"
    folder = root / place
    (folder / "waveform").mkdir(parents=True)
    lines: dict[str, list[str]] = {"text": [], "prompt_text": [], "prompt_wav.scp": []}
    for number, (seconds, prompt_text, text) in enumerate(texts, start=1):
        wav = f"waveform/prompt_audio_{number}.wav"
        write_tone(folder / wav, seconds, hz=200.0 + 100 * number)
        lines["text"].append(f"uttid_{number} {text}\n")
        lines["prompt_text"].append(f"uttid_{number} {prompt_text}\n")
        # Two slashes, and the repository's own folder in front, as they are published.
        given = f"{place}/{wav}".replace("zero_shot/", "zero_shot//")
        lines["prompt_wav.scp"].append(f"uttid_{number} {given}\n")
    for file, content in lines.items():
        (folder / file).write_text("".join(content))
    return folder


def biasing(path: Path, clips: Sequence[Clip], distractors: Sequence[str]) -> Path:
    """A file of biasing lists: the first word of every second clip is rare."""
    lines = []
    for number, clip in enumerate(clips):
        text = clip.text.lower().replace('"', "").replace(",", "")
        rare = [text.split()[0]] if number % 2 else []
        listed = sorted({*rare, *distractors})
        lines.append("\t".join([clip.id, text, json.dumps(rare), json.dumps(listed)]) + "\n")
    path.write_text("".join(lines))
    return path
