"""The benchmark runs on tiny shapes, checks that every system does the same work, and writes its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from grpo_bench.bars import bars, efficiency, growth_over_flops  # noqa: E402
from grpo_bench.case import Case, layer_weights, step_flops  # noqa: E402
from grpo_bench.runner import check_work  # noqa: E402


def run(*args: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "grpo_step.py"), "--tiny", *args]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All systems on the tiny case, and the page of it."""
    folder = tmp_path_factory.mktemp("benchmark")
    printed = run(
        "--sections",
        "case",
        "--out",
        str(folder / "out.json"),
        "--write-docs",
        str(folder / "docs"),
    )
    return json.loads((folder / "out.json").read_text()) | {"printed": printed, "folder": folder}


def test_systems_do_the_same_work(results: dict[str, Any]) -> None:
    systems = results["case"]["results"]
    assert list(systems) == ["ours", "naive", "trl"]
    rows, prompts, new, prompt = 6, 2, 4, 12
    for name, result in systems.items():
        work = result["work"]
        assert (work["prompts"], work["completions"], work["generated"]) == (
            prompts,
            rows,
            rows * new,
        )
        assert work["optimizer_steps"] == 1
        shared = prompts if name == "ours" else rows
        assert work["lm_tokens"]["rollout"] == shared * prompt + rows * (new - 1)
        # TRL sends the last token of a completion through the model too, whose prediction nobody asks for.
        passed = new if name == "trl" else new - 1
        assert (
            work["lm_tokens"]["update"]
            == work["lm_tokens"]["reference"]
            == shared * prompt + rows * passed
        )
        assert result["figures"]["kl"] == pytest.approx(0.0, abs=1e-4)
        assert result["added_bytes"] > 0
        assert (
            sum(phase["median"] for phase in result["phases"].values()) <= result["seconds"]["max"]
        )


def test_page_holds_what_was_measured(results: dict[str, Any]) -> None:
    page = (results["folder"] / "docs" / "benchmarks.md").read_text()
    ours = results["case"]["results"]["ours"]
    assert (
        f"{ours['seconds']['median']:.2f} [{ours['seconds']['min']:.2f}, {ours['seconds']['max']:.2f}]"
        in page
    )
    reached = bars({"case": results["case"]})
    assert len(reached) == 3
    for bar in reached:
        assert f"| {bar.name} | {bar.wanted} | {bar.reached:.2f} |" in page
        assert str(bar) in results["printed"]
    assert (results["folder"] / "docs" / "images" / "benchmark_phases.png").read_bytes()[
        :4
    ] == b"\x89PNG"


def test_audio_is_encoded_once_per_clip(tmp_path: Path) -> None:
    run("--sections", "audio", "--out", str(tmp_path / "out.json"))
    systems = json.loads((tmp_path / "out.json").read_text())["audio"]["results"]
    rows = {name: result["work"]["encoder_rows"] for name, result in systems.items()}
    assert rows == {"ours": 2, "naive": 3 * 6}  # rollout, reference and update, each sample anew


def test_flops_of_a_case_by_hand() -> None:
    case = Case(
        num_prompts=1,
        prompt_tokens=2,
        group_size=2,
        new_tokens=2,
        width=4,
        layers=1,
        intermediate=8,
        heads=1,
    )
    assert layer_weights(case) == 4 * 16 + 3 * 32
    tokens, pairs = 2 + 2 * 1, (1 + 2) + 2 * 3
    forward = 2 * 160 * tokens + 4 * 4 * pairs + 2 * 4 * 32000 * 4
    assert step_flops(case) == {"rollout": forward, "reference": forward, "update": 3 * forward}


def test_twice_the_samples_are_the_flops_of_the_bar() -> None:
    works = [sum(step_flops(Case(group_size=g)).values()) for g in (8, 16)]
    assert works[1] / works[0] == pytest.approx(1.69, abs=0.02)


def result_of(case: Case, seconds: float, added_bytes: int = 100) -> dict[str, Any]:
    return {
        "case": case.as_dict(),
        "seconds": {"median": seconds},
        "phases": {"update": {"median": seconds / 2}},
        "added_bytes": added_bytes,
        "product_flops_per_s": 1e11,
    }


def test_bars_compare_with_what_is_wanted() -> None:
    case = Case()
    good = {"ours": result_of(case, 10.0, 50), "trl": result_of(case, 40.0, 100)}
    met = {bar.name: bar for bar in bars({"case": {"results": good}, "long": {"results": good}})}
    assert met["step time, TRL over ours"].reached == 4.0
    assert met["step time, TRL over ours"].ok
    assert met["added peak memory, ours over TRL"].ok
    assert not met["step time, TRL over ours, a minute of audio"].ok
    assert efficiency(good["ours"]) == step_flops(case)["update"] / 5.0 / 1e11
    assert met["efficiency of the update"].ok == (efficiency(good["ours"]) >= 0.5)
    double = result_of(Case(group_size=16), 25.0)
    times, work = growth_over_flops(good["ours"], double)
    assert times == 2.5
    (bar,) = bars({"groups": {"results": {"G=8": good["ours"], "G=16": double}}})
    assert bar.reached == times / work
    assert not bar.ok


def test_an_earlier_build_is_compared_by_its_rollout_and_its_memory() -> None:
    results = {}
    for case in (Case(), Case(num_prompts=1, prompt_tokens=1500, group_size=16)):
        for name, seconds, memory in (("before", 9.0, 100), ("ours", 5.0, 101)):
            result = result_of(case, 2 * seconds, memory)
            result["phases"]["rollout"] = {"median": seconds}
            results[f"{name}/P={case.prompt_tokens}"] = result
    met = {bar.name: bar for bar in bars({"before": {"results": results}})}
    # At a minute of audio twice as fast is wanted, and no build may take more memory.
    assert met["rollout, before over now, P=384"].reached == 1.8
    assert [bar.ok for bar in met.values()] == [True, False, False, False]


def test_other_work_is_refused() -> None:
    case = Case(num_prompts=2, group_size=3, new_tokens=4, prompt_tokens=12)
    right = {
        "prompts": 2,
        "completions": 6,
        "generated": 24,
        "optimizer_steps": 1,
        "lm_tokens": {"rollout": 2 * 12 + 6 * 3},
    }
    check_work("ours", case, right)
    for name, value in {
        "generated": 23,
        "optimizer_steps": 2,
        "lm_tokens": {"rollout": 6 * 12 + 6 * 3},
    }.items():
        with pytest.raises(RuntimeError, match="other work"):
            check_work("ours", case, right | {name: value})


def test_a_shared_prompt_draws_the_tokens_of_copies(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "rollout_ways.py"), "--tiny"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--cases", "case", "--models", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("same tokens True") == 3
    assert "| shared prompt |" in done.stdout
