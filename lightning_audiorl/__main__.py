"""``python -m lightning_audiorl``: the same as the console script ``audiorl``."""

from __future__ import annotations

from lightning_audiorl.cli import main

if __name__ == "__main__":
    main()
