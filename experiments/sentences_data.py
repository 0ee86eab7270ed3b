"""Recordings for experiments/sentences.py: sentences of a few common words, spoken by three voices of flite.

    python experiments/sentences_data.py --out runs/sentences/data --flite flite

Flite is a program of its own (Debian's package ``flite``, 2.2; the voices slt, rms and kal16 come with it). Writes
FLAC files at 16 kHz and an ASR manifest for each part; no sentence is in two parts. A second run writes the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from shutil import which
from typing import Any

import soundfile

from lightning_audiorl.data.corpora.grammar import Grammar, Part
from lightning_audiorl.data.draws import pick, seconds
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform

VOICES = ("slt", "rms", "kal16")
#: Times the voice's own length: slower speech has more codes a sound.
STRETCH = (1.05, 1.25)
NUM_ROWS: dict[Part, int] = {"dev": 120, "test": 200, "train": 3600}

#: Words without a homophone, which an open recogniser writes in one way.
SLOTS = {
    "PERSON": ("father", "mother", "brother", "sister", "doctor", "teacher", "farmer", "captain"),
    "ANIMAL": ("dog", "cat", "horse", "bird", "rabbit", "monkey"),
    "THING": ("book", "letter", "box", "phone", "ticket", "table", "bottle", "basket", "picture"),
    "COLOUR": ("green", "white", "black", "yellow", "brown", "orange"),
    "PLACE": ("kitchen", "garden", "office", "station", "market", "village", "school", "forest"),
    "KIND": ("little", "big", "happy", "old", "young", "hungry", "quiet", "strong"),
    "DID": ("carried", "opened", "found", "lost", "bought", "wanted", "painted", "remembered"),
    "WENT": ("walked", "returned", "hurried", "came"),
    "DAY": ("monday", "tuesday", "friday", "saturday", "sunday"),
    "WHEN": ("today", "tomorrow", "tonight"),
}
TEMPLATES = (
    "visit the PLACE WHEN",
    "bring the COLOUR THING",
    "open the THING WHEN",
    "my PERSON is KIND",
    "my PERSON DID the THING",
    "the COLOUR ANIMAL is KIND",
    "they WENT from the PLACE",
    "we visit the PLACE on DAY",
    "the ANIMAL is in the PLACE",
    "put the THING in the PLACE",
    "the KIND PERSON DID the THING",
    "my PERSON WENT from the PLACE",
)
GRAMMAR = Grammar("en", TEMPLATES, SLOTS, names=(), voices={})


def speak(flite: str, text: str, voice: str, stretch: float, path: Path) -> None:
    """Write what a voice says of a text as 16 kHz FLAC; the whole file or none.

    Raises:
        RuntimeError: the program is missing, failed, or has another rate than 16 kHz.
    """
    if which(flite) is None:
        raise RuntimeError(
            f"the program {flite!r} is not there; install flite (Debian's package flite), or name it by --flite"
        )
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "said.wav"
        command = [flite, "-voice", voice, "--setf", f"duration_stretch={stretch}"]
        done = subprocess.run(
            [*command, "-t", text, "-o", str(wav)], capture_output=True, text=True, check=False
        )
        if done.returncode or not wav.is_file():
            raise RuntimeError(
                f"{flite} did not say {text!r} in voice {voice}: {done.stderr.strip()}; is it flite 2.2 with the "
                f"voices {', '.join(VOICES)}?"
            )
        samples, rate_hz = soundfile.read(wav, dtype="int16")

    if rate_hz != 16000:
        raise RuntimeError(f"{flite}: voice {voice} came at {rate_hz} Hz, and 16000 are wanted")
    unfinished = path.with_suffix(".part")
    soundfile.write(unfinished, samples, rate_hz, format="FLAC", subtype="PCM_16")
    unfinished.replace(path)


def row(flite: str, folder: Path, part: Part, number: int) -> dict[str, Any]:
    """Row ``number`` of a part, and its recording; the same on each call."""
    name = f"flite-{part}-{number:05d}"
    u_voice, u_stretch = keyed_uniform(2, name, "delivery").tolist()
    voice = pick(VOICES, u_voice)
    text = GRAMMAR.draw(keyed_generator(name, "sentence"), part, (4, 6))

    path = folder / "audio" / f"{name}.flac"
    if not path.is_file():
        speak(flite, text, voice, seconds(STRETCH, u_stretch), path)
    duration_s = soundfile.info(path).frames / 16000
    return {
        "id": name,
        "audio_filepath": str(path.relative_to(folder)),
        "duration": round(duration_s, 4),
        "text": text,
        "speaker": voice,
        "lang": "en",
    }


def unprompted(recording: dict[str, Any]) -> dict[str, Any]:
    """A recording as a row of speech synthesis without a speaker prompt: text, and target."""
    names = ("id", "text", "speaker", "lang")
    target = {"audio_filepath": recording["audio_filepath"], "duration": recording["duration"]}
    return {name: recording[name] for name in names} | {"target": target}


def write(folder: Path, flite: str) -> None:
    """The manifests of all parts; recordings that are there stay as they are."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for part, num_rows in NUM_ROWS.items():
        rows = [row(flite, folder, part, number) for number in range(num_rows)]
        write_lines(folder / f"{part}.jsonl", rows)
        write_lines(folder / f"{part}_unprompted.jsonl", [unprompted(each) for each in rows])


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def main() -> None:
    """Write the recordings, and say how much speech there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sentences/data"))
    parser.add_argument("--flite", default="flite", help="the program")
    args = parser.parse_args()

    write(args.out, args.flite)
    for part in NUM_ROWS:
        rows = [json.loads(line) for line in (args.out / f"{part}.jsonl").read_text().splitlines()]
        hours = sum(each["duration"] for each in rows) / 3600
        texts = len({each["text"] for each in rows})
        print(f"{part}: {len(rows)} recordings, {hours:.2f} hours, {texts} different texts")
    print(f"{len(GRAMMAR.words)} words: {', '.join(GRAMMAR.words)}")


if __name__ == "__main__":
    main()
