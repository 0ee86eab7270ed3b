"""What a user gets from a wheel: built from the sdist, installed in a new environment, run outside of the checkout.

    python -m tools.dist                # dependencies are those of this environment
    python -m tools.dist --whole true   # installed anew, about 6 GB

The package index is asked for the build tools. Prints each step; the first that fails ends it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import venv
import wave
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lightning_audiorl"

#: Two steps of a model of a few thousand weights, with a report and an export.
SETTINGS = """
trainer: {accelerator: cpu, default_root_dir: run}
model:
  class_path: GRPO
  init_args:
    policy:
      class_path: FunAsrNanoPolicy
      init_args:
        init_from: {class_path: TinyFunAsrNano, init_args: {width: 32, encoder_layers: 1, lm_layers: 1, heads: 2}}
    num_steps: 2
    group_size: 4
    decoding: {max_new_tokens: 5}
    rewards: {rewards: [{class_path: Accuracy, init_args: {floor: -1.0}}, Hallucination]}
data:
  class_path: AsrDataModule
  init_args: {batch_size: 2, train: rows.jsonl, val: {dev: rows.jsonl}}
"""


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints.

    Raises:
        SystemExit: where it fails, with all that it said.
    """
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\n{words[0]} ended with {done.returncode}")
    return done.stdout


def tracked() -> list[str]:
    """The files that git knows, from the repository's root."""
    listed = run("git", "ls-files", folder=ROOT)
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def copy_tracked(target: Path) -> None:
    """Only what git knows: what lies about in a checkout is in no release."""
    for name in tracked():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())


def environment(folder: Path) -> Path:
    """The Python of a new environment."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def built(work: Path) -> tuple[Path, Path]:
    """sdist and wheel, the latter made of the former."""
    python = environment(work / "building")
    run(python, "-m", "pip", "install", "-q", "build", folder=work)
    copy_tracked(work / "source")
    run(python, "-m", "build", "--outdir", work / "dist", folder=work / "source")
    [sdist] = (work / "dist").glob("*.tar.gz")
    [wheel] = (work / "dist").glob("*.whl")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """Every file of the package is in both, and nothing but the package is in the wheel.

    Raises:
        SystemExit: naming what is missing, or too much.
    """
    wanted = {name for name in tracked() if name.startswith(f"{PACKAGE}/")}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}

    missing = sorted(wanted - in_wheel) + sorted((wanted | {"LICENSE"}) - in_sdist)
    if missing:
        sys.exit(f"missing in wheel or sdist: {missing}")
    more = [name for name in in_wheel - wanted if ".dist-info/" not in name]
    if more:
        sys.exit(f"in the wheel, but no file of the package: {sorted(more)}")
    print(f"{len(wanted)} files in both; wheel {wheel.stat().st_size / 1e6:.2f} MB")


def write_rows(folder: Path) -> None:
    """Four tones with a word each, and a manifest."""
    rows = []
    for number, word in enumerate(("one", "two", "three", "four")):
        samples = [int(9000 * math.sin(0.1 * (number + 1) * i)) for i in range(4800)]
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
        rows.append({"audio_filepath": f"{number}.wav", "text": word, "duration": 0.3})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def check_use(python: Path, folder: Path) -> None:
    """Version, help, import, and a run with its report, in a folder that is no checkout.

    Raises:
        SystemExit: where the package is not the installed one, or a file of the run is missing.
    """
    audiorl = python.with_name("audiorl")
    print(run(audiorl, "--version", folder=folder).strip())
    run(audiorl, "--help", folder=folder)
    place = run(python, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", folder=folder)
    if not Path(place.strip()).is_relative_to(python.parents[1]):
        sys.exit(f"{PACKAGE} was imported from {place}, not from the new environment")

    write_rows(folder)
    (folder / "my.yaml").write_text(SETTINGS)
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    run(audiorl, "plan", "--config", "my.yaml", folder=folder, **offline)
    run(audiorl, "fit", "--config", "my.yaml", folder=folder, **offline)
    for name in ("report/report.html", "export/config.json", "checkpoints/last.ckpt"):
        if not (folder / "run" / name).is_file():
            sys.exit(f"the run has written no {name}")


def main() -> None:
    """Build, look inside, install, use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", choices=("true", "false"), default="false")
    whole = parser.parse_args().whole == "true"

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sdist, wheel = built(work)
        check_contents(sdist, wheel)

        python = environment(work / "clean")
        alone = [] if whole else ["--no-deps"]
        run(python, "-m", "pip", "install", "-q", *alone, wheel, folder=work)
        if not whole:
            # A plain path: files of that folder that point to a checkout are not read.
            [packages] = (work / "clean").glob("lib/python*/site-packages")
            own = [path for path in sys.path if path.endswith("site-packages")]
            (packages / "borrowed.pth").write_text("\n".join(own) + "\n")

        (work / "elsewhere").mkdir()
        check_use(python, work / "elsewhere")
    print("sdist and wheel install and run")


if __name__ == "__main__":
    main()
