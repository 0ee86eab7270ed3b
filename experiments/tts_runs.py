"""The runs behind docs/tts_figures.md: shipped configurations of speech synthesis, one folder per run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from figure_runs import Figures, Spec, audiorl, last_figures, newest_evaluation, spec

MODEL = "model.init_args"
CONFIGS = Path(__file__).parents[1] / "configs" / "tts" / "fsdd"
#: Parts that come with the configurations, and are not trained again.
SHIPPED = CONFIGS / "parts"
#: A start is at rest when its dev error falls by no more than this share of itself over a tenth of its steps.
AT_REST = 0.03
#: In the order in which they need each other.
PARTS = (
    "codec",
    "asr_judge",
    "held_out_asr_judge",
    "speaker_encoder",
    "held_out_speaker_encoder",
    "token2text",
)


def from_test(num_rows: int, seed: int) -> Spec:
    """Texts and prompts of the data set's own test recordings."""
    return {
        "test": spec(
            "data.speech.FsddSpeech",
            part="test",
            num_words=[1, 4],
            prompt_words=[1, 2],
            num_rows=num_rows,
            seed=seed,
            with_target=False,
        )
    }


#: The evaluation set; settings are chosen on dev.
TEST = from_test(800, seed=8)
#: A second draw, for the comparison of each combination with its halves alone: smaller differences show on it.
MORE_TEST = from_test(1600, seed=11)
SAMPLED = {"sampled": {"decoding": {"temperature": 1.0, "tokens_per_second": 50.0, "min_cap": 16}}}


def shipped(name: str) -> Spec:
    """configs/tts/fsdd/<name>.yaml."""
    loaded: Spec = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return loaded


def placed(settings: Spec, folders: Mapping[str, Path]) -> Spec:
    """The settings with the folders under runs/tts/fsdd that ``folders`` names put elsewhere."""
    text = yaml.safe_dump(settings, sort_keys=False, width=10_000)
    for name, path in folders.items():
        text = text.replace(f"runs/tts/fsdd/{name}/export", str(path))
    loaded: Spec = yaml.safe_load(text)
    return loaded


def changed(settings: Spec, changes: Mapping[str, Any]) -> Spec:
    """A copy with values at dotted keys, ``model.init_args.num_steps``, replaced."""
    copy = deepcopy(settings)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = copy
        for parent in parents:
            place = place[parent]
        place[last] = value
    return copy


def in_folder(settings: Spec, folder: Path, seed: int) -> Spec:
    """The run's own folder and seed."""
    logger = deepcopy(settings["trainer"].get("logger"))
    if isinstance(logger, dict):
        logger["init_args"]["save_dir"] = str(folder)
    own = {"default_root_dir": str(folder), "logger": logger, "enable_checkpointing": False}
    trainer = {"num_sanity_val_steps": 0} | settings["trainer"] | own
    return settings | {"seed_everything": seed, "trainer": trainer}


def part(name: str, out: Path) -> Path:
    """The folder of a trained part (codec, judge, ...): as shipped, or else trained if it is not there."""
    export = parts(out)[name]
    if export.parent != SHIPPED:
        settings = placed(shipped(name), parts(out))
        audiorl(
            "fit", in_folder(settings, export.parent, settings["seed_everything"]), export.parent
        )
    return export


def parts(out: Path) -> dict[str, Path]:
    """Where the parts are: as shipped, or as trained here."""
    return {
        name: SHIPPED / name if (SHIPPED / name).is_dir() else out / "parts" / name / "export"
        for name in PARTS
    }


def parts_and_start(out: Path, seed: int) -> dict[str, Path]:
    """Where the parts and the start of one seed are."""
    return parts(out) | {"sft": start_model(out, seed)}


def start_model(out: Path, seed: int) -> Path:
    """The language model that every row of one seed starts from; that of seed 0 comes with the configurations."""
    if seed == 0:
        return SHIPPED / "lm"
    first = out / f"seed{seed}" / "start"
    return [first, *sorted(first.parent.glob("start_more_*"))][-1] / "export"


def start(out: Path, seed: int) -> float | None:
    """Train the start of one seed; how much its dev error still fell in the last tenth, None for the one that ships.

    Each seed has its own initial weights, labelled utterances and order. A start whose error fell by more than
    `AT_REST` goes on for another tenth of the steps at the last learning rate, and so on until it does not. The
    evaluations are on 1,200 texts of the dev part, heard by the held-out judge alone.
    """
    if start_model(out, seed).parent == SHIPPED:
        return None
    folder = out / f"seed{seed}" / "start"
    settings = placed(shipped("sft"), parts(out))
    num_steps = settings["model"]["init_args"]["num_steps"]
    settings = changed(
        settings,
        {
            "model.init_args.policy.init_args.init_from.init_args.seed": seed,
            "data.init_args.train": [
                with_seed(subset, 100 + seed) for subset in settings["data"]["init_args"]["train"]
            ],
            "model.init_args.evaluation": held_out_alone(
                settings["model"]["init_args"]["evaluation"]
            ),
            "data.init_args.val": {"dev": dev(1200)},
        },
    )

    # The last tenth of the run is watched: one evaluation at its beginning, one at its end.
    watched = changed(settings, {"trainer.val_check_interval": num_steps - num_steps // 10})
    audiorl("fit", in_folder(watched, folder, seed), folder)
    before, after = dev_errors(folder)[-2:]
    for number in range(1, 6):
        if before - after <= AT_REST * before:
            break
        model = folder / "export"
        folder = folder.parent / f"start_more_{number}"
        audiorl(
            "fit", in_folder(one_more_tenth(settings, model), folder, seed + 100 * number), folder
        )
        before = after
        after = dev_errors(folder)[-1]

    return (before - after) / before


def one_more_tenth(settings: Spec, model: Path) -> Spec:
    """SFT of ``settings`` from where it ended: its last mix and learning rate, a tenth of its steps."""
    init = settings["model"]["init_args"]
    last_mix = [
        subset | {"share": list(subset["share"].values())[-1]}
        for subset in settings["data"]["init_args"]["train"]
    ]
    optim = {
        "lr": init["optim"]["lr"] * init["optim"]["min_lr_ratio"],
        "weight_decay": init["optim"]["weight_decay"],
    }
    return changed(
        settings,
        {
            "model.init_args.policy.init_args.init_from": str(model),
            "model.init_args.num_steps": init["num_steps"] // 10,
            "model.init_args.optim": optim | {"schedule": "constant"},
            "data.init_args.train": last_mix,
        },
    )


def dev_errors(folder: Path) -> list[float]:
    """The held-out judge's CER on dev at each evaluation of a run."""
    evaluations = json.loads((folder / "report" / "report.json").read_text())["evaluations"]
    return [evaluation["results"]["dev"]["held_out_cer"] for evaluation in evaluations]


def dev(num_rows: int) -> Spec:
    """Rows of the dev part, the first of which every configuration evaluates on."""
    rows: Spec = deepcopy(shipped("grpo")["data"]["init_args"]["val"]["dev"])
    rows["init_args"]["num_rows"] = num_rows
    return rows


def held_out_alone(evaluation: Spec) -> Spec:
    """The evaluation without the judges that reward."""
    judge = evaluation["init_args"]["held_out_judge"]
    return evaluation | {"init_args": {"held_out_judge": judge}}


def with_seed(subset: Spec, seed: int) -> Spec:
    """A part of a training mix with another draw of rows."""
    return changed(subset, {"source.init_args.seed": seed})


def labelled(seed: int) -> list[Spec]:
    """The recordings that the start of one seed has learnt from: those with a prompt, as every evaluation has."""
    return [
        with_seed(shipped("sft")["data"]["init_args"]["train"][-1] | {"share": 1.0}, 100 + seed)
    ]


def run(out: Path, seed: int, name: str, config: str, changes: Mapping[str, Any]) -> Path:
    """One training run from the seed's start; the folder of the run."""
    folder = out / f"seed{seed}" / name
    settings = placed(changed(shipped(config), changes), parts_and_start(out, seed))
    if config == "control":
        settings["data"]["init_args"]["train"] = labelled(seed)
    audiorl("fit", in_folder(settings, folder, seed), folder)
    return folder


def evaluated(out: Path, seed: int, name: str, model: Path, rows: Spec = TEST) -> Figures:
    """The figures of an exported model on the evaluation set, or on other rows."""
    folder = out / f"seed{seed}" / name
    changes = {
        "data.init_args.val": rows,
        "data.init_args.train": None,
        f"{MODEL}.eval_decodings": SAMPLED,
        f"{MODEL}.policy.init_args.init_from": str(model),
    }
    settings = in_folder(placed(changed(shipped("grpo"), changes), parts(out)), folder, seed)
    settings["trainer"]["logger"] = False
    audiorl("validate", settings, folder)
    return last_figures(newest_evaluation(folder))


def log_means(folder: Path) -> dict[str, float]:
    """Means over the steps of a run: what says whether its parts did their share; and its seconds."""
    history = json.loads((folder / "report" / "report.json").read_text())["history"]
    wanted = (
        "diffro_share",
        "grad_cosine",
        "grad_norm/grpo",
        "grad_norm/diffro",
        "diffro/used_share",
        "kl",
    )
    means = {
        name: statistics.fmean(v for v in history[name] if v is not None)
        for name in wanted
        if any(history.get(name, []))
    }
    return means | {"seconds": float(json.loads((folder / "fit.seconds.json").read_text()))}


def budget(folder: Path) -> str:
    """What one run may do: steps, rows and samples a step, peak learning rate."""
    settings = yaml.safe_load((folder / "fit.yaml").read_text())
    model = settings["model"]["init_args"]
    rows, group = settings["data"]["init_args"]["batch_size"], model.get("group_size", 1)
    each = f"{rows} texts x {group} samples" if group > 1 else f"{rows} recordings"
    return f"{model['num_steps']} steps of {each}, peak learning rate {model['optim']['lr']:g}"
