"""Reinforcement learning for LLM-based ASR and TTS, as PyTorch Lightning modules (arXiv 2509.18569)."""

from __future__ import annotations

from importlib.metadata import version

from lightning_audiorl import moved

__version__ = version("lightning-audiorl")

moved.install()
