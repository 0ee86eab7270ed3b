"""Commands beside Lightning's own: one function each, its arguments are the command's."""

from __future__ import annotations

from pathlib import Path

from lightning_audiorl.models.policy import Policy


def export(policy: Policy, folder: str) -> None:
    """Write a policy as a folder that the transformers class loads with ``from_pretrained``.

    Args:
        policy: class path and arguments; its ``init_from`` may be a Lightning checkpoint.
        folder: where to write.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    policy.export(folder)
    print(f"exported to {folder}")


COMMANDS = {"export": export}
