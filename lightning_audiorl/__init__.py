"""Reinforcement learning for LLM-based ASR and TTS, as PyTorch Lightning modules (arXiv 2509.18569)."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("lightning-audiorl")
