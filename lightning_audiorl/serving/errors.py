"""What can go wrong with an engine that is another process."""

from __future__ import annotations


class EngineError(RuntimeError):
    """An engine refused a request, or answered it with what cannot be."""


class EngineLostError(EngineError):
    """An engine has died, hangs, or is of no use any more: another one may be started in its place."""


class MismatchError(EngineError):
    """An engine samples from other probabilities than the policy has."""
