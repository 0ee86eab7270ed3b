"""Resemblyzer's encoder in a network of ours: stretches, levels, and the file that its weights are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.judges import JudgeError, ResemblyzerEncoder
from lightning_audiorl.judges.models import resemblyzer
from lightning_audiorl.judges.models.resemblyzer import VoiceNetwork, stretches
from tests.judges.fakes import said, tone


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file as the package's training writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VoiceNetwork()
        # Else few values are left above 0.
        torch.nn.init.uniform_(network.linear.bias, 0.1, 0.5)
    state: dict[str, Any] = network.state_dict() | {"similarity_weight": torch.ones(1)}
    file = tmp_path_factory.mktemp("voice") / "pretrained.pt"
    torch.save({"step": 3, "model_state": state, "optimizer_state": {"groups": [1]}}, file)
    return str(file)


def test_the_embedding_is_the_mean_over_stretches(weights: str) -> None:
    encoder = ResemblyzerEncoder(weights)
    clip = encoder.audible(tone(110.0, 3.0), 8000)
    assert stretches(len(clip)) == [0, 77, 154]

    # The same by hand: 1.6 s each, silence behind the clip.
    frames = encoder.mel(torch.nn.functional.pad(clip, (0, 4000))).T
    parts = [encoder.network(frames[None, first : first + 160])[0] for first in (0, 77, 154)]
    mean = torch.stack(parts).mean(0)
    (found,) = encoder.embed(clip[None], torch.tensor([len(clip)]), 16000)
    torch.testing.assert_close(found, mean / mean.norm(), atol=1e-4, rtol=0.0)


def test_the_level_of_quiet_speech_and_padding_play_no_part(weights: str) -> None:
    encoder = ResemblyzerEncoder(weights)
    clip = encoder.audible(tone(110.0, 0.8), 8000)
    quiet, quieter = 0.02 * clip, 0.01 * clip
    padded = torch.stack([quiet, quieter])
    padded = torch.nn.functional.pad(padded, (0, 500))
    one, other = encoder.embed(padded, torch.tensor([len(clip)] * 2), 16000)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0.0)

    samples = [said(waveform=tone(110.0), prompt=tone(110.0)), said(waveform=tone(240.0))]
    (same, prompt), (another, nobody) = encoder.voices(samples)
    assert same is not None
    assert prompt is not None
    assert another is not None
    assert nobody is None
    assert float(same @ prompt) == pytest.approx(1.0, abs=1e-5)
    # Random weights tell no voices apart; those of the package do, see below.
    assert another.shape == same.shape == (256,)


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"ResemblyzerEncoder.weights: no file nowhere.pt"):
        ResemblyzerEncoder("nowhere.pt")
    file = tmp_path / "small.pt"
    torch.save({"model_state": VoiceNetwork(width=8, layers=1).state_dict()}, file)
    with pytest.raises(JudgeError, match="not the weights of Resemblyzer"):
        ResemblyzerEncoder(str(file))
    monkeypatch.setattr(resemblyzer, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps Resemblyzer, or give weights"):
        ResemblyzerEncoder()


def test_the_weights_of_the_package() -> None:
    if resemblyzer.find_spec("resemblyzer") is None:
        pytest.skip("Resemblyzer is not installed")
    (voice, prompt) = ResemblyzerEncoder().voices([said(waveform=tone(110.0), prompt=tone(240.0))])[
        0
    ]
    assert voice is not None
    assert prompt is not None
    assert 0.2 < float(voice @ prompt) < 0.99
