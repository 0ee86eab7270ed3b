from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_audiorl.judges import (
    EcapaEncoder,
    EcapaNetwork,
    JudgeError,
    SpeakerEncoder,
    XvectorEncoder,
)
from lightning_audiorl.judges import XvectorNetwork as Xvector
from lightning_audiorl.judges.models.speakers import NetworkEncoder
from tests.helpers import assert_close
from tests.judges.fakes import RATE_HZ, tone


def ecapa() -> EcapaNetwork:
    return EcapaNetwork(RATE_HZ, num_mels=20, width=16, attention_width=8, se_width=8, dim=6)


def encoders() -> list[SpeakerEncoder]:
    return [NetworkEncoder(ecapa(), "ecapa"), NetworkEncoder(Xvector(width=8, dim=6), "xvector")]


@pytest.mark.parametrize("encoder", encoders())
def test_embeddings_have_length_one_and_depend_on_the_clip_alone(encoder: SpeakerEncoder) -> None:
    clips = [tone(120.0, 0.3), tone(220.0, 0.5)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)
    together = encoder.embed(batch, torch.tensor([2400, 4000]), RATE_HZ)
    assert together.shape == (2, 6)
    assert_close(together.norm(dim=-1), torch.ones(2))
    for row, clip in zip(together, clips, strict=True):
        assert_close(row, encoder.embed(clip[None], torch.tensor([len(clip)]), RATE_HZ)[0])
    assert torch.dot(*together) < 0.9999, "two tones have one embedding: this compares nothing"


def test_masked_frames_of_ecapa_leave_the_mean_alone() -> None:
    """In a padded batch (training) only the reflection at a clip's end differs from the clip alone."""
    network = ecapa().eval()
    clip = tone(120.0, 0.5)
    alone = network(clip[None], torch.tensor([4000]))
    batch = torch.stack([torch.cat([clip, torch.zeros(4000)]), tone(200.0, 1.0)])
    padded = network(batch, torch.tensor([4000, 8000]))
    assert torch.cosine_similarity(alone[0], padded[0], dim=0) > 0.98


def test_saved_and_loaded(tmp_path: Path) -> None:
    network, x = ecapa().eval(), Xvector(width=8, dim=6).eval()
    network.save(str(tmp_path / "e"))
    x.save(str(tmp_path / "x"))
    clip, length = tone(180.0)[None], torch.tensor([4000])
    for loaded, original in (
        (EcapaEncoder(str(tmp_path / "e")), network),
        (XvectorEncoder(str(tmp_path / "x")), x),
    ):
        expected = torch.nn.functional.normalize(original(clip, length), dim=-1)
        assert_close(loaded.embed(clip, length, RATE_HZ), expected.detach(), "exact")
        assert loaded.sample_rate_hz == RATE_HZ
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_speechbrain_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"neither config\.json .* nor embedding_model\.ckpt"
    ):
        EcapaEncoder(str(tmp_path))
    torch.save(ecapa().ecapa.state_dict(), tmp_path / "embedding_model.ckpt")
    with pytest.raises(JudgeError, match="not the sizes of speechbrain/spkrec-ecapa-voxceleb"):
        EcapaEncoder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no folder \./nowhere"):
        EcapaEncoder("./nowhere")
