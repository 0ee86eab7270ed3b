"""Parts are where the table says, no number changes for it, and any touch of what is parked fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor, nn

from lightning_audiorl.algorithms import SFT, Optim
from lightning_audiorl.models import Finetune
from lightning_audiorl.strategies import PHASES, Part, PhaseSingleDevice, Placement, module_parts
from lightning_audiorl.types import Hypothesis
from tests.algorithms.tiny import (
    FINETUNES,
    Judge,
    Recorder,
    fit,
    make_batch,
    make_grpo,
    make_policy,
)

CPU = torch.device("cpu")
PLACEMENTS: dict[str, dict[str, Any]] = {
    "resident": {"placement": "resident"},
    "offload": {"placement": "offload"},
    "auto": {"placement": "auto", "budget_gb": 2.6 / 1024},  # the encoder and a little more
}


def same(one: Recorder, other: Recorder) -> None:
    """Losses, gradients and weights are bit-identical."""
    assert [m["loss"] for m in one.metrics] == [m["loss"] for m in other.metrics]
    assert len(one.gradients) == len(other.gradients) > 0
    pairs = zip([*one.gradients, *one.weights], [*other.gradients, *other.weights], strict=True)
    for mine, theirs in pairs:
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="module")
def plain() -> dict[str, Recorder]:
    return {mode: fit(grpo(mode)) for mode in FINETUNES}


def grpo(mode: str = "all", **settings: Any) -> Any:
    return make_grpo(
        make_policy(FINETUNES[mode]), num_steps=3, num_updates=2, micro_batch_size=2, **settings
    )


@pytest.mark.parametrize("mode", FINETUNES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placement_changes_no_number(plain: dict[str, Recorder], placement: str, mode: str) -> None:
    placed = fit(grpo(mode), strategy=PhaseSingleDevice(**PLACEMENTS[placement]))
    same(plain[mode], placed)
    first, last = placed.weights[0], placed.weights[-1]
    assert any(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("encoder", [False, True])
def test_supervised_training_takes_turns_too(encoder: bool) -> None:
    def run(**settings: Any) -> Recorder:
        policy = make_policy(Finetune(encoder=encoder))
        return fit(SFT(policy, num_steps=2, micro_batch_size=2, optim=Optim(lr=1e-3)), **settings)

    same(run(), run(strategy=PhaseSingleDevice(placement="offload")))


class Look(Callback):
    """Which parts hold values, and what the ledger says, as each RL step ends, and within its phases."""

    def __init__(self) -> None:
        self.bytes: dict[str, dict[str, int]] = {}
        self.metrics: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.ledger = trainer.strategy.ledger  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.bytes = {phase: dict(held) for phase, held in self.ledger.resident_bytes.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.metrics = dict(pl_module.step_metrics)


def num_bytes(tensors: list[Tensor]) -> int:
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def test_ledger_counts_the_storages_that_each_phase_needs() -> None:
    module = make_grpo(make_policy(), num_steps=2)
    held = {name: module.policy.parts()[name] for name in ("encoder", "projector", "lm")}
    encoder = num_bytes([t for m in held["encoder"] for t in (*m.parameters(), *m.buffers())])
    trainable = num_bytes(list(module.policy.trainable().values()))
    look = Look()
    fit(module, None, look, strategy=PhaseSingleDevice(placement="offload"))

    def nonzero(phase: str) -> set[str]:
        return {name for name, size in look.bytes[phase].items() if size}

    assert list(look.bytes) == list(PHASES)
    assert nonzero("encode") == {"encoder"}
    assert look.bytes["encode"]["encoder"] == encoder
    assert nonzero("rollout") == {"projector (trainable)", "lm", "lm (trainable)", "context"}
    assert nonzero("reward") == set()
    assert nonzero("reference") == {"lm", "reference", "context"}
    assert look.bytes["reference"]["reference"] == trainable
    assert nonzero("update") == {
        "projector (trainable)",
        "lm",
        "lm (trainable)",
        "context",
        "optimizer",
    }
    assert look.bytes["update"]["optimizer"] == 2 * trainable
    assert look.metrics["resident_mib/encode"] == pytest.approx(encoder / 2**20)
    assert look.metrics["moving/mib"] > 0
    assert look.metrics["peak_mib/update"] > 0
    assert module.ledger_table is not None
    assert "| reference | . | . | . |" in module.ledger_table


def test_resident_moves_nothing_and_auto_stays_within_its_budget() -> None:
    looks = {}
    for name, settings in PLACEMENTS.items():
        looks[name] = Look()
        fit(
            make_grpo(make_policy(), num_steps=2),
            None,
            looks[name],
            strategy=PhaseSingleDevice(**settings),
        )
    assert looks["resident"].metrics["moving/mib"] == 0
    assert 0 < looks["auto"].metrics["moving/mib"] <= looks["offload"].metrics["moving/mib"]
    for phase in PHASES:
        offload, auto, resident = (
            sum(looks[n].bytes[phase].values()) for n in ("offload", "auto", "resident")
        )
        assert offload <= auto <= resident
        assert auto <= max(offload, PLACEMENTS["auto"]["budget_gb"] * 2**30)
    assert sum(looks["auto"].bytes["reward"].values()) > 0  # kept, for there is room


class Listener(Judge):
    """Judges with a model, as a speech recogniser would."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        lengths = torch.tensor([[float(len(h.text))] for h in hypotheses])
        return [float(value) for value in self.model(lengths)]


def test_judges_are_there_in_the_reward_phase_alone() -> None:
    look = Look()
    fit(
        make_grpo(make_policy(), Listener()),
        None,
        look,
        strategy=PhaseSingleDevice(placement="offload"),
    )
    assert {phase for phase, held in look.bytes.items() if held["judge"]} == {"reward"}


def test_a_touch_of_a_parked_module_fails() -> None:
    layer = nn.Linear(3, 3)
    value = layer.weight.detach().clone()
    placement = Placement("offload", CPU)
    placement.add(module_parts("encoder", [layer]))
    assert layer.weight.untyped_storage().nbytes() == 0
    with pytest.raises(RuntimeError):
        layer(torch.ones(2, 3))
    placement.enter("encode")
    assert torch.equal(layer.weight, value)
    layer(torch.ones(2, 3)).sum().backward()
    placement.enter("reward")
    assert layer.weight.numel() == 0
    with placement.all_values():
        assert torch.equal(layer.weight, value)
    assert layer.weight.numel() == 0
    placement.release()
    assert torch.equal(layer.weight, value)


def test_a_wrong_table_fails_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(make_policy())
    parts = module.parts
    wrong = frozenset({"update"})
    monkeypatch.setattr(module, "parts", lambda: [Part(p.name, wrong, p.tensors) for p in parts()])
    with pytest.raises((RuntimeError, IndexError)):
        fit(module, strategy=PhaseSingleDevice(placement="offload"))


def test_values_written_while_shown_are_kept() -> None:
    weight = nn.Parameter(torch.ones(2))
    placement = Placement("offload", CPU)
    placement.add([Part("lm (trainable)", frozenset({"update"}), lambda: [weight])])
    with placement.all_values(), torch.no_grad():
        weight.copy_(torch.tensor([3.0, 4.0]))
    placement.enter("update")
    assert weight.tolist() == [3.0, 4.0]
    placement.enter("encode")
    with placement.all_values():
        weight.data = torch.tensor([5.0, 6.0])
    placement.enter("update")
    assert weight.tolist() == [5.0, 6.0]


def test_every_parameter_is_in_a_part() -> None:
    for finetune in FINETUNES.values():
        policy = make_policy(finetune)
        parts = [
            part for name, modules in policy.parts().items() for part in module_parts(name, modules)
        ]
        placed = [id(tensor) for part in parts for tensor in part.tensors()]
        assert len(placed) == len(set(placed))
        assert {id(p) for p in policy.parameters()} <= set(placed)


def test_a_run_under_offload_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if pl_module.rl_step == 2:
                trainer.save_checkpoint(tmp_path / "two.ckpt")

    def run(*callbacks: Callback, **settings: Any) -> Recorder:
        module = make_grpo(make_policy(), num_steps=4, optim=Optim(lr=1e-3))
        batches = [make_batch() for _ in range(4 if "ckpt_path" not in settings else 2)]
        return fit(
            module, batches, *callbacks, strategy=PhaseSingleDevice(placement="offload"), **settings
        )

    whole = run(Save())
    rest = run(ckpt_path=str(tmp_path / "two.ckpt"))
    for name, weight in whole.weights[-1].items():
        assert torch.equal(weight, rest.weights[-1][name])
    assert [m["loss"] for m in whole.metrics[2:]] == [m["loss"] for m in rest.metrics]


def test_after_a_run_the_policy_is_whole_again() -> None:
    module = make_grpo(make_policy())
    fit(module, strategy=PhaseSingleDevice(placement="offload"))
    assert all(p.numel() for p in module.policy.parameters())
    module.policy.encode(make_batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"placement": "half"}, "expected one of resident"), ({"placement": "auto"}, "budget_gb")],
)
def test_bad_settings_fail_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseSingleDevice(**settings)


def test_one_device_only() -> None:
    with pytest.raises(ValueError, match="phase_ddp"):
        fit(make_grpo(), strategy="phase_single", devices=2)


def test_strategies_have_names() -> None:
    assert {"phase_single", "phase_ddp", "phase_fsdp"} <= set(
        StrategyRegistry.available_strategies()
    )
    assert isinstance(
        Trainer(strategy="phase_single", accelerator="cpu", logger=False).strategy,
        PhaseSingleDevice,
    )
