"""A plan of each family knows what trains: adapters alone take less in the update than everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_audiorl.commands.plan import trace
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from tests.models.families import POLICIES, SPECS, finetune_of
from tests.models.records import RECORDS
from tests.planner.runs import settings

MODES = {"fun_asr_nano": ("all", "last", "lora", "lora+projector", "projector")}
MODES |= {"whisper": ("all", "last", "lora")}
MODES |= {name: record.modes for name, record in RECORDS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", MODES)
def test_a_plan_knows_what_trains(family: str, tmp_path: Path) -> None:
    model, _ = SPECS[family].build()
    model.config.save_pretrained(tmp_path)
    update = {}
    for mode in MODES[family]:

        def planned(mode: str = mode) -> CachedPromptPolicy:
            policy: CachedPromptPolicy = POLICIES[family](str(tmp_path), finetune_of(family, mode))
            return policy

        made = trace(settings(make_policy=planned), audio_s=1.5)
        assert min(made.phases[phase] for phase in ("encode", "rollout", "update")) > 0, mode
        update[mode] = made.phases["update"]

    # Gradients and moments are of what trains.
    assert update["all"] == max(update.values())
    assert update["lora"] < update["all"]
    assert update["last"] < update["all"]
