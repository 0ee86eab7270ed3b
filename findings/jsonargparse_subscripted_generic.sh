#!/usr/bin/env bash
# jsonargparse 4.53.0 (the parser behind LightningCLI): subclasses of a generic base cannot be named in YAML once the
# type hint is subscripted.
#
# A parameter of type `list[Loss]`, Loss an abstract generic class, takes {class_path: Good, init_args: {beta: 0.5}} and
# makes a Good. The same parameter typed `list[Loss[Any]]`, which type checkers treat alike and strict ones ask for,
# refuses the very same settings ("Option 'beta' is not accepted"): the subscripted class is taken for the class to be
# made, and what class_path names is not looked at.
#
# Seen: Python 3.11.7. Output then:
#   list[Loss]: Good, beta 0.5
#   list[Loss[Any]]: ArgumentError, Option 'beta' is not accepted
# What follows for a library: annotate parameters that YAML fills with the bare class.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'jsonargparse[signatures]==4.53.0'

cat > "$folder/generic.py" <<'PYTHON'
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from jsonargparse import ArgumentParser

T = TypeVar("T")


class Loss(ABC, Generic[T]):
    @abstractmethod
    def compute(self) -> float: ...


class Good(Loss[int]):
    def __init__(self, beta: float = 0.1) -> None:
        self.beta = beta

    def compute(self) -> float:
        return self.beta


class Bare:
    def __init__(self, losses: list[Loss]) -> None:
        self.losses = losses


class Subscripted:
    def __init__(self, losses: list[Loss[Any]]) -> None:
        self.losses = losses


settings = {"losses": [{"class_path": "__main__.Good", "init_args": {"beta": 0.5}}]}
for title, kind in (("list[Loss]", Bare), ("list[Loss[Any]]", Subscripted)):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "module")
    try:
        module = parser.instantiate(parser.parse_object({"module": settings})).module
        (loss,) = module.losses
        print(f"{title}: {type(loss).__name__}, beta {loss.beta}")
    except Exception as error:
        last = str(error).strip().splitlines()[-1].strip()
        print(f"{title}: {type(error).__name__}, {last}")
PYTHON

found=$("$folder/venv/bin/python" "$folder/generic.py")
expected="list[Loss]: Good, beta 0.5
list[Loss[Any]]: ArgumentError, Option 'beta' is not accepted"
echo "$found"
[ "$found" = "$expected" ] || { echo "not as it was seen" >&2; exit 1; }
