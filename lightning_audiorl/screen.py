"""What the command line prints where something went wrong: a few lines, the reason last, without a traceback.

``--debug`` on the command line, or AUDIORL_DEBUG=1, shows the tracebacks and the parser's whole text.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_audiorl.command_line import config_files, nearest

_DEBUG = "AUDIORL_DEBUG"
_PACKAGE = "lightning_audiorl"
_WIDTH = 110

#: A mistake in the settings is told in so many lines at most.
MAX_LINES = 15

# Packages whose classes a YAML file may name by the class alone, and those of Lightning that it names by path.
_CLASSES = (
    *(
        f"{_PACKAGE}.{name}"
        for name in (
            "algorithms",
            "callbacks",
            "codecs",
            "data",
            "judges",
            "losses",
            "metrics",
            "models",
            "ops",
            "rewards",
            "strategies",
            "token2text",
        )
    ),
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
)

# What jsonargparse says around a reason: that a union has other members, and what was given, at length.
_AROUND = (
    "Does not validate against any of the Union subtypes",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value type:",
    "Given value:",
    "Subclass types expect one of:",
    "a class path (str)",
    "a dict with",
    "a dict without",
    "Not a valid subclass of",
)


def is_debug() -> bool:
    """Whether whole tracebacks are wanted."""
    return os.environ.get(_DEBUG, "") not in ("", "0")


def take_debug(arguments: list[str]) -> list[str]:
    """The arguments without ``--debug``; processes that are started from here will know of it, too.

    Example:
        >>> take_debug(["fit", "--config", "x.yaml"])
        ['fit', '--config', 'x.yaml']
    """
    if "--debug" in arguments:
        os.environ[_DEBUG] = "1"
    return [argument for argument in arguments if argument != "--debug"]


# --- mistakes in the settings


@dataclass
class _Place:
    """Where in the settings a line of the parser's text belongs."""

    indent: int
    key: str = ""
    class_path: str = ""


@dataclass
class Mistake:
    """One reason that the parser gives, and where it stands.

    Args:
        places: (key, class path) from the outermost section on; either may be empty.
        reason: as the parser says it.
    """

    places: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""

    @property
    def class_path(self) -> str:
        """The innermost class; empty where there is none."""
        classes = [class_path for _, class_path in self.places if class_path]
        return classes[-1] if classes else ""

    @property
    def where(self) -> str:
        """Such as ``model: GRPO > rewards: RewardMix``."""
        steps: list[str] = []
        for key, class_path in self.places:
            name = class_path.rpartition(".")[2]
            if key:
                steps.append(key)
            elif steps:
                steps[-1] = f"{steps[-1]}: {name}"
            else:
                steps.append(name)
        return " > ".join(steps)


def mistakes(message: str) -> list[Mistake]:
    """The reasons in a message of the parser, each with its place, without the rest of it.

    Example:
        >>> found = mistakes('''Parser key "data":
        ...   Problem with given class_path 'my.Rows':
        ...     Option 'siez' is not accepted''')
        >>> found[0].where, found[0].reason
        ('data: Rows', "Option 'siez' is not accepted")
    """
    found: list[Mistake] = []
    places: list[_Place] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        indent = len(line) - len(line.lstrip())
        if not text or text.startswith(_AROUND):
            continue

        # What is further in belongs to the places that are further out.
        places = [place for place in places if place.indent < indent]
        key = re.match(r'Parser key "([^"]*)":\s*', text)
        if key is not None:
            places.append(_Place(indent, key=key[1]))
            text = text[key.end() :]
        problem = re.match(r"Problem with given class_path '([^']*)':\s*", text)
        if problem is not None:
            places.append(_Place(indent, class_path=problem[1]))
            text = text[problem.end() :]
        if text:
            mistake = Mistake([(place.key, place.class_path) for place in places], text)
            if mistake not in found:
                found.append(mistake)
    return found


def settings_of(class_path: str) -> list[str]:
    """The names of a class's arguments, those of its bases where it hands them on; empty for what is no class.

    Example:
        >>> settings_of("lightning_audiorl.types.Decoding")[:2]
        ['temperature', 'top_k']
    """
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    if not inspect.isclass(found):
        return []

    names: dict[str, None] = {}
    for base in found.__mro__:
        init = vars(base).get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        names |= dict.fromkeys(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        names |= dict.fromkeys(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(names)


def class_names() -> list[str]:
    """The classes that a YAML file may name, of this package and of Lightning."""
    names: set[str] = set()
    for package in _CLASSES:
        module = importlib.import_module(package)
        names |= {name for name, value in vars(module).items() if inspect.isclass(value)}
    return sorted(names)


def reworded(mistake: Mistake, options: list[str]) -> str:
    """The reason in plain words, with the nearest name that there is.

    Args:
        options: what the command line takes, as ``trainer.max_time``.
    """
    reason = mistake.reason
    class_name = mistake.class_path.rpartition(".")[2] or "this section"

    option = re.match(r"Option '([^']*)' is not accepted", reason)
    if option is not None:
        settings = settings_of(mistake.class_path)
        near = nearest(option[1], settings)
        has = f"; it has: {', '.join(settings)}" if settings and not near else ""
        return f"{class_name} has no setting '{option[1]}'{near}{has}"

    missing = re.match(r"the following arguments are required: (.*)", reason)
    if missing is not None:
        who = class_name if mistake.class_path else "the command"
        needs = re.sub(r"\b(fit|validate|test)\.", "", missing[1])
        return f"{who} needs a value for: {needs}"

    unknown = re.match(r"Expected a dot import path string: (\S*)", reason)
    if unknown is not None:
        return f"there is no class '{unknown[1]}'{nearest(unknown[1], class_names())}"

    missing_name = re.match(r"module '([\w.]+)' has no attribute '(\w+)'", reason)
    if missing_name is not None:
        near = nearest(missing_name[2], class_names())
        return f"there is no class '{missing_name[1]}.{missing_name[2]}'{near}"

    refused = re.match(
        r"(?:Subcommand '\w+' does not accept option '|unrecognized arguments: --)([\w.+]+)", reason
    )
    if refused is not None:
        return f"there is no setting '{refused[1]}'{nearest(refused[1], options)}"

    wanted = re.match(r"Expected a <class '([\w.]+)'>\. Got value: (.*)", reason)
    if wanted is not None:
        return f"want {wanted[1]}, got {wanted[2]}"
    return reason


def explained(message: str, options: list[str]) -> str:
    """A message of the parser in at most `MAX_LINES` lines, the reason last."""
    found = mistakes(message)
    if not found:
        return f"error: {message.strip()[:1000]}"

    # Of several reasons the one furthest in is about the class that was meant; it stands last. Lines of one place
    # are one text, such as what a YAML parser says.
    deepest = max(len(mistake.places) for mistake in found)
    chosen = [mistake for mistake in found if len(mistake.places) == deepest]
    lines: list[str] = []
    if chosen[0].where:
        lines.append(f"in {chosen[0].where}:")
    for number, mistake in enumerate(chosen[: MAX_LINES // 2]):
        lead = "error: " if number == 0 else ""
        text = lead + reworded(mistake, options)
        lines += textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(_shortened(lines))


def _shortened(lines: list[str]) -> list[str]:
    """At most `MAX_LINES` less those that a caller adds, none of them endless."""
    most = MAX_LINES - 3
    if len(lines) > most:
        lines = [*lines[: most - 1], "..."]
    return [line if len(line) <= 300 else f"{line[:300]} ..." for line in lines]


def options_of(parser: ArgumentParser) -> list[str]:
    """What a parser and those of its subcommands take, without dashes."""
    names: list[str] = []
    for action in parser._actions:
        names += [option.lstrip("-") for option in action.option_strings]
        if isinstance(action.choices, dict):
            for of_command in action.choices.values():
                names += options_of(of_command)
    return names


class _TellsReasons(ArgumentParser):
    """A parser whose errors are a few lines."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if is_debug() or not self.exit_on_error:
            super().error(message, ex)

        # The parser of a command is the one that knows its options.
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        text = explained(message, options_of(parser))
        files = list(config_files(sys.argv[1:]))
        if "<unicode string>" in text and len(files) == 1:
            text = text.replace("<unicode string>", files[0])
        print(
            f"{command}: a setting is wrong; `{command} --help` lists what there is.",
            file=sys.stderr,
        )
        print(text, file=sys.stderr)
        self.exit(2)


class CommandParser(_TellsReasons):
    """The parser of one of our own commands."""


class LightningCommandParser(_TellsReasons, LightningArgumentParser):
    """The parser of Lightning's commands."""


# --- errors while a command runs


@contextmanager
def own_words() -> Iterator[None]:
    """What a constructor says of its arguments comes out by itself, without the parser's words around it."""
    try:
        yield
    except ValueError as error:
        cause: BaseException = error
        while cause.__cause__ is not None and str(cause).startswith(_AROUND[0]):
            cause = cause.__cause__
        raise cause from None


def is_on_purpose(error: BaseException) -> bool:
    """Whether an error tells a user what is wrong, so that a traceback would only hide it.

    That is what this package raises itself, what the system says of files, and what Lightning says of settings. Any
    other error is a fault of somebody's code, and wants its traceback.
    """
    if isinstance(error, OSError | MisconfigurationException):
        return True
    if error.__traceback__ is None or not isinstance(error, Exception):
        return False

    of_process = _of_another_process(error)
    if of_process is not None:
        path, source, _ = of_process
        return _PACKAGE in path and source.startswith("raise ")

    frames = list(traceback.walk_tb(error.__traceback__))
    frame, line = frames[-1]
    module = str(frame.f_globals.get("__name__", ""))
    source = linecache.getline(frame.f_code.co_filename, line)
    return module.startswith(f"{_PACKAGE}.") and source.strip().startswith("raise ")


def _of_another_process(error: BaseException) -> tuple[str, str, str] | None:
    """(file, line of code, message) of an error in a data worker or a rank, whose traceback is in the message."""
    text = str(error)
    frames = re.findall(r'^  File "([^"]+)", line \d+, in .*\n    (.*)$', text, re.MULTILINE)
    if "Traceback (most recent call last)" not in text or not frames:
        return None

    path, source = frames[-1]
    _, _, after = text.rpartition(f"    {source}\n")
    # Python underlines what failed of a line.
    message = re.sub(r"^ +[\^~]+\n", "", after)
    _, _, reason = message.strip().partition(": ")
    return path, source, reason or message.strip()


def told(error: BaseException) -> str:
    """An error as a user reads it: its message, and its notes."""
    message = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        message = str(error.args[0]) if error.args else "KeyError"

    of_process = _of_another_process(error)
    if of_process is not None:
        message = of_process[2]
    notes: list[str] = getattr(error, "__notes__", [])
    return "\n".join([f"error: {message}", *notes])


def stop(error: BaseException) -> NoReturn:
    """End the process because of an error: exit code 1, its message, and a traceback where it helps.

    Raises:
        SystemExit: always, but with `is_debug`, where the error goes on.
    """
    if is_debug():
        raise error
    if is_on_purpose(error):
        print(f"\n{told(error)}\n(--debug shows the traceback)", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.exit(1)
