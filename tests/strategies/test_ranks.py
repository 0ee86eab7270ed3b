"""Two processes over gloo against one: the same hypotheses, gradients and weights on the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_audiorl.engine.distributed import clip_gradients, merge_metrics
from lightning_audiorl.reports import read_rows
from tests.command import tiny_config, write_manifest
from tests.strategies.worker import run

pytestmark = pytest.mark.timeout(900)  # two processes on a busy machine
FAMILIES = ("fun_asr_nano", "whisper", "text_lm")
STRATEGIES = ("phase_ddp", "phase_fsdp")
ROOT = Path(__file__).parents[2]
Witnessed = dict[str, Any]
Launch = Callable[[list[dict[str, Any]]], list[Witnessed]]


def start(settings: list[dict[str, Any]], devices: int = 2) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
    }
    command = [sys.executable, "-m", "tests.strategies.worker", str(devices), json.dumps(settings)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def in_two(folder: Path, settings: list[dict[str, Any]]) -> list[Witnessed]:
    """What each run gave, in one launch of two processes."""
    settings = [{**one, "out": str(folder / f"{number}.pt")} for number, one in enumerate(settings)]
    done = start(settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [torch.load(one["out"], weights_only=True) for one in settings]


def alone(settings: dict[str, Any]) -> Witnessed:
    return run({k: v for k, v in settings.items() if k != "strategy"})


def worst(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest relative difference of a tensor; what is 0 but for rounding (a key's bias) is left out."""
    assert one.keys() == other.keys()
    largest = max(float(tensor.norm()) for tensor in one.values())
    known = [name for name, tensor in one.items() if float(tensor.norm()) > 1e-8 * largest]
    assert len(known) >= len(one) // 2  # a fresh adapter has no gradient in its first matrix
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in known)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference of all tensors together."""
    assert one.keys() == other.keys()
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())


CASES = [{"family": family, "num_steps": 5} for family in FAMILIES]
#: Nothing is learnt from the prompts of rank 1; the ranks' passes differ in number; supervised; adapters only.
CASES += [
    {"judge": "blind", "num_steps": 2},
    {"max_tokens": 60, "micro_batch_size": 0, "num_steps": 2},
]
CASES += [{"algorithm": "SFT", "num_steps": 2}, {"mode": "lora", "num_steps": 2}]
#: What speaks: its codec, and judges that reward and that evaluate.
CASES += [{"family": "speech_lm", "num_steps": 3}]
#: DiffRO's filter keeps less on rank 1; nothing there; nothing at all.
CASES += [{"algorithm": "DiffRO", "keep": names, "num_steps": 2} for names in ("abc", "ab")]
CASES += [{"algorithm": "GRPODiffRO", "keep": names, "num_steps": 2} for names in ("ab", "")]
#: Dynamic sampling where the groups of rank 1 alone are flat: in one step two are replaced.
CASES += [{"judge": "flat", "max_refills": 2, "num_steps": 2}]
NOTHING = {"algorithm": "DiffRO", "keep": "", "num_steps": 2}


@pytest.fixture(scope="module", params=STRATEGIES)
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Witnessed]:
    settings = [{**case, "strategy": request.param} for case in (*CASES, NOTHING)]
    return in_two(tmp_path_factory.mktemp(request.param), settings)


@pytest.fixture(scope="module")
def single() -> list[Witnessed]:
    return [alone(case) for case in CASES]


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[" ".join(map(str, case.values())) for case in CASES]
)
def test_two_processes_do_what_one_does(
    runs: list[Witnessed], single: list[Witnessed], number: int
) -> None:
    two, one = runs[number], single[number]
    assert two["texts"][0] == one["texts"][0]
    assert worst(one["gradients"][0], two["gradients"][0]) < 1e-5
    moved, apart = (
        distance(one["start"], one["weights"][-1]),
        distance(one["weights"][-1], two["weights"][-1]),
    )
    print(f"{CASES[number]}: weights moved {moved:.3g}, two processes end {apart:.2g} apart")
    assert moved > 0
    assert apart < 0.01 * moved
    of_diffro = (
        "diffro/used_share",
        "reward/diffro/total",
        "grad_norm/diffro",
        "dropped/diffro/Only",
    )
    for name in ("loss", "kl", "reward/mean", "entropy", "grad_norm", "used_share", *of_diffro):
        if name in one["metrics"][0]:
            assert two["metrics"][0][name] == pytest.approx(
                one["metrics"][0][name], rel=1e-4, abs=1e-6, nan_ok=True
            )
    assert (len(one["evaluations"]) == 2) == ("speech" in str(CASES[number]))
    for before, after in zip(one["evaluations"], two["evaluations"], strict=True):
        for figure, value in before["set0"].items():
            if figure != "rtf":
                assert after["set0"][figure] == pytest.approx(
                    value, rel=1e-4, abs=1e-6, nan_ok=True
                )


def test_a_step_of_diffro_from_which_no_rank_learns_moves_nothing(runs: list[Witnessed]) -> None:
    nothing = runs[-1]
    assert nothing["gradients"] == []
    assert all(distance(nothing["start"], weights) == 0 for weights in nothing["weights"])
    for metrics in nothing["metrics"]:
        assert (metrics["skipped_updates"], metrics["used_share"], metrics["reward/mean"] > 0) == (
            1,
            0,
            True,
        )
        assert metrics["dropped/diffro/Only"] + metrics["dropped/diffro/no_speech"] == 16


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_of_two_processes_goes_on_in_one_and_the_reverse(
    strategy: str, tmp_path: Path
) -> None:
    common = {"strategy": strategy, "num_steps": 4}
    saved = {"two": str(tmp_path / "two.ckpt"), "one": str(tmp_path / "one.ckpt")}
    whole = (
        alone({**common, "save_at": 2, "save": saved["one"]}) if strategy == "phase_ddp" else None
    )
    if whole is None:
        done = start(
            [{**common, "save_at": 2, "save": saved["one"], "out": str(tmp_path / "w.pt")}],
            devices=1,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        whole = torch.load(tmp_path / "w.pt", weights_only=True)
    from_one, _ = in_two(
        tmp_path,
        [
            {**common, "ckpt_path": saved["one"], "stop_at": 2},
            {**common, "save_at": 2, "save": saved["two"]},
        ],
    )
    done = start(
        [{**common, "ckpt_path": saved["two"], "stop_at": 2, "out": str(tmp_path / "r.pt")}],
        devices=1,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    from_two = torch.load(tmp_path / "r.pt", weights_only=True)
    for resumed in (from_one, from_two):
        assert len(resumed["metrics"]) == 2
        moved = distance(whole["start"], whole["weights"][-1])
        assert distance(whole["weights"][-1], resumed["weights"][-1]) < 1e-4 * moved
        assert resumed["metrics"][-1]["loss"] == pytest.approx(
            whole["metrics"][-1]["loss"], rel=1e-3, abs=1e-6
        )


def test_an_exception_on_one_rank_is_one_on_all(tmp_path: Path) -> None:
    done = start(
        [{"strategy": "phase_ddp", "num_steps": 2, "spoil": True, "out": str(tmp_path / "x.pt")}]
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "of audio; this model takes" in said  # rank 1's own reason
    assert "1 other rank(s) failed in the rollout" in said


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_command_line_in_two_processes(strategy: str, tmp_path: Path) -> None:
    """Everything around the step too: evaluation over both ranks, early stop, report, checkpoints, export."""
    write_manifest(tmp_path)
    exported = {}
    for devices in (1, 2):
        config = tiny_config(tmp_path, num_steps=4) | {
            "report": {"enabled": True},
            "export": {"enabled": True},
        }
        config["early_stop"] = {"monitor": "val/tones/wer", "patience": 1, "min_delta": 99.0}
        config["trainer"] |= {"devices": devices, "default_root_dir": str(tmp_path / str(devices))}
        config["trainer"] |= {"val_check_interval": 2}
        config["trainer"] |= {"strategy": strategy} if devices == 2 else {}
        file = tmp_path / f"{devices}.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "lightning_audiorl", "fit", "--config", str(file)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        exported[devices] = load_file(tmp_path / str(devices) / "export" / "model.safetensors")
    report = json.loads((tmp_path / "2" / "report" / "report.json").read_text())
    assert report["machine"]["processes"] == 2
    assert (report["rl_step"], report["status"].partition(";")[0]) == (2, "stopped early")
    assert "| optimizer |" in (tmp_path / "2" / "report" / "report.md").read_text()
    alone = json.loads((tmp_path / "1" / "report" / "report.json").read_text())
    for figure, value in alone["before"]["results"]["tones"].items():
        if figure not in ("real_time_factor",) and value is not None:
            assert report["before"]["results"]["tones"][figure] == pytest.approx(value)
    # Each rank has evaluated a share of the rows; the report has all of them, each once.
    rows = [read_rows(tmp_path / devices / "report" / "report.before.jsonl", 0) for devices in "12"]
    ids = [[one.row.id for one in of_run["tones"]] for of_run in rows]
    assert len(ids[0]) == len(set(ids[0])) == 6
    assert ids[0] == ids[1]
    assert (tmp_path / "2" / "checkpoints" / "last.ckpt").is_file()
    assert exported[1].keys() == exported[2].keys()
    for name, tensor in exported[1].items():
        torch.testing.assert_close(exported[2][name], tensor, rtol=1e-3, atol=2e-4)


def test_plain_ddp_is_refused(tmp_path: Path) -> None:
    done = start([{"strategy": "ddp", "out": str(tmp_path / "x.pt")}])
    assert done.returncode != 0
    assert "phase_ddp or phase_fsdp" in done.stdout + done.stderr


def test_figures_of_ranks_are_merged() -> None:
    ranks = [
        (
            3.0,
            {
                "reward/mean": 1.0,
                "dropped/A": 2.0,
                "seconds/encode": 0.1,
                "kl": float("nan"),
                "x": float("nan"),
            },
        ),
        (
            1.0,
            {
                "reward/mean": 5.0,
                "dropped/A": 1.0,
                "seconds/encode": 0.3,
                "kl": 0.5,
                "x": float("nan"),
            },
        ),
    ]
    merged = merge_metrics(ranks)
    assert merged["reward/mean"] == 2.0
    assert merged["dropped/A"] == 3.0
    assert merged["seconds/encode"] == 0.3
    assert merged["kl"] == 0.5
    assert merged["x"] != merged["x"]


def test_clipping_measures_before_it_clips() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([parameter], 0.0) == 5.0
    assert parameter.grad.tolist() == [3.0, 4.0]
    assert clip_gradients([parameter], 1.0) == 5.0
    assert float(parameter.grad.norm()) == pytest.approx(1.0, rel=1e-5)
