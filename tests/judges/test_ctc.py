from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_audiorl.judges import CtcJudge, JudgeError, LogMelGru, MfccConv, XvectorEncoder
from lightning_audiorl.judges.models.ctc import CtcNetwork, greedy_text
from lightning_audiorl.judges.models.networks import Frames
from lightning_audiorl.ops.randomness import keyed_generator
from tests.helpers import assert_close
from tests.judges.fakes import RATE_HZ, said, tone

NETWORKS = [
    LogMelGru(characters="abc ", width=8),
    MfccConv(characters="abc ", width=8, dilations=(1, 2)),
]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([0, 0], ""),
        ([1, 1, 0, 1, 2, 2, 3], "aabc"),
        ([0, 4, 1, 0, 0, 4], " a "),
        ([2], "b"),
    ],
)
def test_greedy_text(ids: list[int], text: str) -> None:
    assert greedy_text(ids, "abc ") == text


@pytest.mark.parametrize("num_cepstra", [0, 12])
def test_frames_depend_on_the_clip_alone(num_cepstra: int) -> None:
    frames = Frames(RATE_HZ, 20, 0.025, 0.01, num_cepstra)
    clip = tone(150.0, 0.3)
    (alone,), (length,) = frames(clip[None], torch.tensor([len(clip)]))
    batch = torch.stack(
        [torch.cat([clip, torch.ones(1600)]), torch.rand(4000, generator=keyed_generator("frames"))]
    )
    together, lengths = frames(batch, torch.tensor([len(clip), 4000]))
    assert lengths.tolist() == [31, 51]
    assert length == 31
    assert_close(together[0, :31], alone[:31])
    assert not together[0, 31:].any()
    if not num_cepstra:
        louder, _ = frames(3 * clip[None], torch.tensor([len(clip)]))
        assert_close(louder[0, :31], alone[:31], "policy")


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_does_not_reach_a_clip(network: CtcNetwork) -> None:
    network.eval()
    clip = tone(150.0, 0.3)
    alone, (length,) = network(clip[None], torch.tensor([len(clip)]))
    noise = torch.rand(4000, generator=keyed_generator("ctc"))
    together, lengths = network(
        torch.stack([torch.cat([clip, torch.ones(1600)]), noise]), torch.tensor([len(clip), 4000])
    )
    assert lengths.tolist() == [length, 26]
    assert_close(together[0, :length], alone[0, :length], "policy")
    assert_close(together.logsumexp(-1), torch.zeros(2, 26))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_judge_from_its_folder_hears_what_the_network_says(
    network: CtcNetwork, tmp_path: Path
) -> None:
    network.eval()
    with torch.no_grad():  # random weights say one thing only: make them say more
        torch.nn.init.normal_(network.out.weight, std=5.0, generator=keyed_generator("out"))  # type: ignore[arg-type]
    network.save(str(tmp_path / "mine"), {"dev/cer": 0.5})
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["figures"] == {
        "dev/cer": 0.5
    }
    judge = CtcJudge(str(tmp_path / "mine"))
    assert judge.name == "mine"
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    clips = [tone(100.0 + 40 * i, 0.2 + 0.1 * i) for i in range(3)]
    expected = []
    for clip in clips:
        log_probs, (length,) = network(clip[None], torch.tensor([len(clip)]))
        expected.append(greedy_text(log_probs[0, :length].argmax(-1).tolist(), "abc ").strip())
    assert judge.transcribe([said(waveform=clip) for clip in clips]) == expected
    assert len(set(expected)) > 1, "the three clips sound alike: this compares nothing"


def test_the_seed_keys_the_weights() -> None:
    first, again, other = (LogMelGru(width=8, seed=seed).out.weight for seed in (1, 1, 2))
    assert_close(first, again, "exact")
    assert (first != other).any()


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no config\.json"):
        CtcJudge(str(tmp_path / "nowhere"))
    NETWORKS[0].save(str(tmp_path))
    with pytest.raises(JudgeError, match=r"kind is 'LogMelGru'; expected one of XvectorNetwork"):
        XvectorEncoder(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    config["sizes"]["width"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeError, match="does not fit the sizes"):
        CtcJudge(str(tmp_path))
