"""The console script ``audiorl``, and ``python -m lightning_audiorl``."""

from __future__ import annotations

import sys

from lightning_audiorl.command_line import answer


def main() -> None:
    """Answer what needs no torch at once, and run the rest.

    Raises:
        SystemExit: 0, 1 for an error, 2 for a command or setting that does not exist.
    """
    code = answer([argument for argument in sys.argv[1:] if argument != "--debug"])
    if code is not None:
        sys.exit(code)

    # Imports torch, Lightning and transformers.
    from lightning_audiorl.cli import main as run

    run()


if __name__ == "__main__":
    main()
