"""What ``audiorl`` answers before it imports torch, which takes seconds: commands, version, a mistyped name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_audiorl.setting_names import first_mistake

# Lightning's own commands.
LIGHTNING_COMMANDS = {
    "fit": "Train by a YAML file of settings: RL, SFT, or a part such as a codec or a judge.",
    "validate": "Evaluate on the validation sets.",
    "test": "Evaluate on the test sets.",
}

#: Every command, and the first line of its docstring.
COMMANDS = LIGHTNING_COMMANDS | {
    "assemble": "Make one speech language model of a pretrained encoder, a fresh projector and a pretrained language "
    "model.",
    "calibrate": "Measure what judges of speech are worth, or compare a Token2Text with a judge of waveforms, and "
    "write a table.",
    "export": "Write a policy as a folder that the transformers class loads with ``from_pretrained``, with a model "
    "card.",
    "manifest": "Write a manifest of a data set in another layout, and say what it holds. The audio stays where it is.",
    "plan": "Print the peak memory of each phase of a run, and what moving parts between phases costs.",
    "predict": "Decode rows with one or more models and write their hypotheses, one JSON line per row and model.",
    "report": "Compare runs: start, control and RL over seeds in one page and table; of one run, write its page again.",
}

#: The outermost settings of Lightning's commands.
SECTIONS = (
    "checkpoint",
    "ckpt_path",
    "config",
    "data",
    "early_stop",
    "export",
    "hacking_watch",
    "model",
    "print_config",
    "progress",
    "report",
    "samples",
    "seed_everything",
    "trainer",
    "weights_only",
)

#: Of ``fit`` alone.
FIT_SECTIONS = ("no_overwrite", "overwrite")


def overview() -> str:
    """Every command in a line, for ``audiorl`` alone."""
    width = max(len(name) for name in COMMANDS)
    lines = ["usage: audiorl COMMAND [--config FILE.yaml] [--SETTING VALUE ...]", ""]
    lines += [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "Each with --help. `--debug` shows tracebacks, `--version` the version."]
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where one known name is near, or two are; else nothing.

    Example:
        >>> nearest("batchsize", ["batch_size", "seed"])
        "; did you mean 'batch_size'?"
    """
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, one, name).ratio() for one in close]
    if len(close) == 2 and likeness[1] < likeness[0] - 0.05:
        close = close[:1]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def config_files(arguments: list[str]) -> Iterator[str]:
    """The files after ``--config``."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in ("--config", "-c"):
            yield argument
        elif argument.startswith("--config="):
            yield argument.partition("=")[2]


def of_the_run(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of ``plan`` itself, and those that are settings of the run that it plans.

    Example:
        >>> of_the_run(["--config", "my.yaml", "--model.beta", "0.1", "--trainer.devices=2", "--json", "true"])
        (['--config', 'my.yaml', '--json', 'true'], ['--model.beta', '0.1', '--trainer.devices=2'])
    """
    own: list[str] = []
    of_run: list[str] = []
    goes_on = own
    for argument in arguments:
        # A value goes where its name went.
        if argument.startswith("--"):
            section = argument[2:].partition("=")[0].partition(".")[0].rstrip("+")
            is_of_run = section in (*SECTIONS, *FIT_SECTIONS) and section != "config"
            goes_on = of_run if is_of_run else own
        goes_on.append(argument)
    return own, of_run


def _settings_of(path: Path) -> dict[Any, Any]:
    """What a YAML file holds; nothing where it is not to be read: the parser says why."""
    import yaml

    try:
        settings: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def mistyped(command: str, arguments: list[str]) -> str:
    """What is wrong with the outermost names of one of Lightning's commands; empty where nothing is.

    Example:
        >>> mistyped("fit", ["--modle.class_path", "GRPO"])
        "there is no setting 'modle'; did you mean 'model'?"
    """
    known = [*SECTIONS, *(FIT_SECTIONS if command == "fit" else ())]
    given = []
    for argument in arguments:
        if argument.startswith("--"):
            option = argument[2:].partition("=")[0]
            given.append((option.partition(".")[0].rstrip("+"), ""))

    for file in config_files(arguments):
        # One file may hold the sections of each command.
        sections = [str(name) for name in _settings_of(Path(file))]
        given += [(name, f" (in {file})") for name in sections if name not in LIGHTNING_COMMANDS]

    for name, where in given:
        if name not in (*known, "help"):
            return f"there is no setting '{name}'{where}{nearest(name, known)}"
    return ""


def misspelt(command: str, arguments: list[str]) -> list[str]:
    """Lines about a class, or a setting of one, that a YAML file names and that does not exist; mostly none."""
    for file in config_files(arguments):
        settings = _settings_of(Path(file))
        settings = settings.get(command, settings)
        found = first_mistake(settings) if isinstance(settings, dict) else None
        if found is None:
            continue

        near = nearest(found.name, found.known)
        if not found.owner:
            reason = f"there is no class '{found.name}'{near}"
        else:
            has = "" if near else f"; it has: {', '.join(found.known)}"
            reason = f"{found.owner} has no setting '{found.name}'{near}{has}"
        return [f"in {file}, {found.where}:", f"error: {reason}"]
    return []


def answer(arguments: list[str]) -> int | None:
    """Answer what needs no model, on the screen; the exit code, or None where the command is to be run.

    Args:
        arguments: of the command line, without ``--debug``.
    """
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help"):
        print(overview())
        return 0
    if first == "--version":
        print(f"audiorl {version('lightning-audiorl')}")
        return 0

    if not first or not (first in COMMANDS or first.startswith("-")):
        print(overview(), file=sys.stderr)
        if first:
            known = nearest(first, COMMANDS)
            print(f"error: there is no command '{first}'{known}", file=sys.stderr)
        return 2

    wrong: list[str] = []
    if first in LIGHTNING_COMMANDS:
        outermost = mistyped(first, arguments[1:])
        wrong = [f"error: {outermost}"] if outermost else misspelt(first, arguments[1:])
    if wrong:
        command = f"audiorl {first}"
        lead = f"{command}: a setting is wrong; `{command} --help` lists what there is."
        print(lead, *wrong, sep="\n", file=sys.stderr)
        return 2
    return None
