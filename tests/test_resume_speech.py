"""DiffRO and GRPO + DiffRO on the command line: killed and resumed, phases on, ended early; what they export."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.token2text import Token2Text
from tests import speech, test_predict_speech
from tests.command import class_of, run
from tests.data.fakes import fake_fsdd
from tests.helpers import assert_close
from tests.test_resume import assert_same_checkpoints, load, scalars, start

pytestmark = pytest.mark.timeout(900)  # several processes on a busy machine
DIFFRO = {
    "relaxation": {"tau": {"start": 1.0, "end": 0.5, "kind": "linear"}, "num_draws": 2},
    "diffro_filters": [class_of("algorithms.LengthRange", low=2)],
}
GRPO_DIFFRO = {
    "diffro_weight": {"start": 0.5, "end": 0.1, "kind": "linear"},
    "normalise": True,
    "diffro_beta": 0.1,
}
#: The monitored figure never falls by so much: the run ends at its third evaluation.
STOP = {"monitor": "val/digits/held_out_cer", "patience": 2, "min_delta": 9.0}


def parts(folder: Path) -> None:
    """What a run needs: recordings, judges, Token2Text, and a start that says different things."""
    fake_fsdd(folder, num_index=11)
    speech.judge_folders(folder)
    codec_hash = content_hash(TinyCodec(speech.CODEC))
    sizes: dict[str, Any] = {"width": 16, "dilations": (1,), "heads": 2, "decoder_layers": 1}
    Token2Text(16, speech.LETTERS, codec_hash=codec_hash, **sizes).save(str(folder / "token2text"))
    test_predict_speech.policy().export(str(folder / "start"))


def config(folder: Path, name: str, algorithm: str) -> dict[str, Any]:
    """A run of four steps, by its length or by an early stop."""
    codec = class_of("codecs.TinyCodec", init_from=asdict(speech.CODEC))
    judge = class_of("judges.CtcJudge", folder=str(folder / "judge"), name="asr")
    held_out = class_of(
        "judges.CtcJudge", folder=str(folder / "held_out_judge"), name="held_out_asr"
    )
    model: dict[str, Any] = {
        "policy": class_of(
            "models.SpeechLMPolicy",
            init_from=str(folder / "start"),
            codec=codec,
            limits={"min_prompt_s": 0.05},
        ),
        "num_steps": 4,
        "num_updates": 2,
        "group_size": 3,
        "beta": 0.1,
        "micro_batch_size": 1,
        "optim": {"lr": 0.003, "schedule": "cosine", "warmup_steps": 2},
        "decoding": {"max_new_tokens": 12, "min_cap": 12},
        "differentiable": class_of(
            "rewards.DifferentiableMix", token2text=str(folder / "token2text")
        ),
        "evaluation": class_of("metrics.SpeechEvaluation", judge=judge, held_out_judge=held_out),
        "eval_decodings": {
            "greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 12, "min_cap": 12}}
        },
    }
    if algorithm == "DiffRO":
        model |= DIFFRO | {"num_steps": 6}
    else:
        # Here judges are named once; rewards and evaluation say which one they mean.
        rewards = [
            class_of("rewards.SpeechAccuracy", judge="asr"),
            class_of("rewards.DurationConsistency", weight=0.5),
        ]
        model |= GRPO_DIFFRO | {
            "judges": {"asr": judge, "held_out_asr": held_out},
            "rewards": class_of("rewards.RewardMix", rewards=rewards),
            "evaluation": class_of(
                "metrics.SpeechEvaluation", judge="asr", held_out_judge="held_out_asr"
            ),
        }
    rows = {
        "root": str(folder),
        "num_words": [1, 3],
        "prompt_words": [2, 3],
        "gap_s": [0, 0.02],
        "edge_s": [0, 0.02],
    }
    train = class_of("data.speech.FsddSpeech", num_rows=30, **rows)
    dev = class_of("data.speech.FsddSpeech", part="dev", num_rows=4, **rows)
    run_folder = str(folder / name)
    logger = class_of(
        "lightning.pytorch.loggers.TensorBoardLogger", save_dir=run_folder, name="", version=""
    )
    return {
        "seed_everything": 7,
        "trainer": {
            "accelerator": "cpu",
            "default_root_dir": run_folder,
            "logger": logger,
            "val_check_interval": 2,
            **({} if algorithm == "DiffRO" else {"strategy": "phase_single"}),
        },
        "model": class_of(f"algorithms.{algorithm}", **model),
        "data": class_of(
            "data.speech.TtsDataModule",
            batch_size=2,
            sample_rate_hz=speech.RATE_HZ,
            prompt_s=[0.05, 5.0],
            train=[{"source": train}],
            val={"digits": dev},
        ),
        "checkpoint": {"every_n_steps": 2, "keep": 9},
        "report": {"enabled": False},
        **({"early_stop": STOP} if algorithm == "DiffRO" else {}),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, str]]:
    """By algorithm: the folder, the whole run, and what the resumed one said. All of them go at the same time.

    Killed in step 4, after the checkpoint of step 2. GRPODiffRO parks its parts, DiffRO is ended before step 5.
    """
    folders = {name: tmp_path_factory.mktemp(name) for name in ("DiffRO", "GRPODiffRO")}
    cut = {name: config(folder, "cut", name) for name, folder in folders.items()}
    for folder in folders.values():
        parts(folder)
    killed = {
        name: start(folders[name], settings, "cut", kill_at=3) for name, settings in cut.items()
    }
    whole = {name: run(folder, config(folder, "whole", name)) for name, folder in folders.items()}
    resumed = {}
    for name, process in killed.items():
        assert process.wait() == -signal.SIGKILL, process.communicate()[1]
        assert load(folders[name] / "cut" / "checkpoints" / "last.ckpt")["audiorl"]["rl_step"] == 2
        resumed[name] = start(folders[name], cut[name], "cut", "--ckpt_path", "last")
    errors = {name: process.communicate()[1] for name, process in resumed.items()}
    assert [process.returncode for process in resumed.values()] == [0, 0], errors
    return {name: (folders[name], whole[name], errors[name]) for name in folders}


@pytest.mark.parametrize("algorithm", ["DiffRO", "GRPODiffRO"])
def test_killed_and_resumed_is_the_whole_run(
    algorithm: str, runs: dict[str, tuple[Path, Any, str]]
) -> None:
    folder, _, said = runs[algorithm]
    assert ("val/digits/held_out_cer has not improved for 2 evaluations" in said) == (
        algorithm == "DiffRO"
    )
    curves = scalars(folder / "whole")
    assert {step for tag, step in curves if tag == "grad_norm"} == {1, 2, 3, 4}
    assert {step for tag, step in curves if tag.startswith("val/digits")} == {0, 2, 4}
    assert len({tag for tag, _ in curves}) > 20
    assert scalars(folder / "cut") == curves
    for name in ("step-000004", "last"):
        assert_same_checkpoints(
            *(folder / which / "checkpoints" / f"{name}.ckpt" for which in ("whole", "cut"))
        )


@pytest.mark.parametrize("algorithm", ["DiffRO", "GRPODiffRO"])
def test_the_export_is_the_policy_in_transformers(
    algorithm: str, runs: dict[str, tuple[Path, Any, str]]
) -> None:
    """Weights, logits and greedy tokens; the folder is the resumed run's, the policy the whole run's."""
    folder, whole, _ = runs[algorithm]
    policy, data = whole.model.policy.eval(), whole.datamodule
    model = AutoModelForCausalLM.from_pretrained(folder / "cut" / "export").eval()
    for name, value in policy.model.state_dict().items():
        assert_close(model.state_dict()[name], value, "exact")
    context = policy.encode(data.load(list(data.val["digits"])))
    rollout = policy.sample(context, 1, speech.GREEDY, SampleKey(0, 0))
    with torch.no_grad():
        logits = policy.head(policy.hidden(context, rollout))
    allowed, said = policy.allowed, set()
    for i, prompt in enumerate(context.tokens):
        own = rollout.tokens[i, 0][rollout.keep[i, 0]]
        ids = torch.tensor([[*prompt, *own.tolist()]])
        with torch.no_grad():
            theirs = model(ids).logits[0, len(prompt) - 1 : -1]
        assert_close(theirs[:, allowed], logits[i, : len(own)][:, allowed], "policy")
        generated = model.generate(
            ids[:, : len(prompt)], do_sample=False, max_new_tokens=speech.GREEDY.max_new_tokens
        )
        assert generated[0, len(prompt) :].tolist() == own.tolist()
        said.add(tuple(own.tolist()))
    assert len(said) > 1, f"this compares next to nothing: {said}"
