"""The README of an exported model: what it was made of, what it learnt from, how it did before and after."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer

from lightning_audiorl.callbacks import environment
from lightning_audiorl.callbacks.metric_table import metric_note, metric_table
from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.report import plain
from lightning_audiorl.callbacks.view import run_view
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.weights.cards import MARK, card_metadata, write_card

_log = logging.getLogger(__name__)

#: Settings of an algorithm that are no part of how the weights came about, or stand in a section of their own.
_LEFT_OUT = ("policy", "rewards", "judges", "evaluation", "eval_decodings", "log_every_n_steps")
#: Of an evaluation, the metrics that a hub knows by name.
_HUB_METRICS = ("wer", "cer")

#: Of a folder with adapters.
_BESIDE = (
    "What was trained is a LoRA adapter, which stands beside the weights that it was trained on. `from_pretrained` "
    "puts it in where peft is there (`pip install peft`); without peft the folder is the base as it was."
)


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Args:
        policy: the model.
        run: of `run_facts`; empty where nothing is known of a run.
        rl_step: after which the weights were taken.
        before: the run's first evaluation, ``rl_step`` and ``results``; None without one.
        after: that of the weights.
        adapter: whether adapters stand beside the base, and not in it.
    """

    policy: Policy
    run: Mapping[str, Any] = field(default_factory=dict)
    rl_step: int = 0
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    adapter: bool = False


def run_facts(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """What a run is: algorithm, settings, rewards, data and versions, as plain data."""
    run = run_view(pl_module)
    of_algorithm = environment.settings(trainer).get("model", {}).get("init_args", {})
    settings = {key: value for key, value in of_algorithm.items() if key not in _LEFT_OUT}
    if not settings:
        settings = _of_module(pl_module)
    settings |= {"num_steps": run.num_steps, "seed": run.seed, "finetune": _finetune(run.policy)}

    rewards = []
    for reward in getattr(getattr(pl_module, "rewards", None), "rewards", ()):
        rewards.append([reward.name, type(reward).__name__, reward.weight])
    # A data module of somebody else's may say nothing.
    facts_of_data = getattr(getattr(trainer, "datamodule", None), "facts", list)

    facts = {
        "algorithm": type(run).__name__,
        "settings": _given(settings),
        "rewards": rewards,
        "data": facts_of_data(),
        "versions": environment.versions(),
    }
    said: dict[str, Any] = plain(facts)
    return said


def _finetune(policy: Policy) -> dict[str, Any]:
    """What trained; how adapters were made only where there are any."""
    finetune = asdict(policy.finetune)
    if finetune["lm"] == "lora":
        return finetune
    return {key: value for key, value in finetune.items() if not key.startswith("lora_")}


def _of_module(pl_module: LightningModule) -> dict[str, Any]:
    """The settings of a run that a script has begun, as far as its module shows them."""
    losses = [type(loss).__name__ for loss in getattr(pl_module, "losses", ())]
    settings: dict[str, Any] = {"losses": losses}
    optim = getattr(pl_module, "optim", None)
    if optim is not None:
        settings["optim"] = asdict(optim)
    return settings


def _given(settings: Any) -> Any:
    """What is set at all, at any depth."""
    if not isinstance(settings, dict):
        return settings
    return {k: _given(v) for k, v in settings.items() if v is not None}


def export_card(folder: str | Path, card: ModelCard) -> None:
    """Write the README of an exported folder; one that no export has written stays, and a line says so."""
    if not write_card(folder, card_text(card)):
        _log.warning(
            "%s has a README.md of yours, which stays: no model card is written; move it away for one",
            folder,
        )


def card_text(card: ModelCard) -> str:
    """The card in Markdown, with the metadata that the Hugging Face hub reads."""
    base = _Base.of(card.policy)
    metadata = yaml.safe_dump(_metadata(card, base), sort_keys=False, allow_unicode=True)

    name = f"{base.name}, trained" if card.run or card.rl_step else base.name
    parts = [
        f"---\n{metadata}---\n\n{MARK}",
        f"# {name}",
        _made_by(card, base),
        base.licence_text(),
    ]

    if card.policy.usage:
        parts += ["## Use", f"```python\n{card.policy.usage}\n```"]
    if card.adapter:
        parts.append(_BESIDE)
    parts += _metrics(card)
    parts += _data(card.run.get("data", []))
    parts += _rewards(card.run.get("rewards", []))

    if card.run.get("settings"):
        settings = yaml.safe_dump(card.run["settings"], sort_keys=False, allow_unicode=True)
        parts += ["## Settings", f"```yaml\n{settings}```"]
    if card.run.get("versions"):
        versions = [f"{name} {number}" for name, number in card.run["versions"].items()]
        parts.append(f"Versions: {', '.join(versions)}.")
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Base:
    """What the weights were before training.

    Args:
        name: in text.
        hub_id: where a hub has it, or what it was made of; None where that is not known.
        metadata: of its own card.
        is_random: whether there is none.
    """

    name: str
    hub_id: str | Sequence[str] | None
    metadata: Mapping[str, Any]
    is_random: bool = False

    @staticmethod
    def of(policy: Policy) -> _Base:
        source = policy.start.record()["source"]
        if not isinstance(source, str):
            return _Base(f"a random {source['kind']}", None, {}, is_random=True)

        metadata = card_metadata(source)
        if Path(source).expanduser().is_dir():
            # Folders of this machine say nothing elsewhere; a card of ours in it says what it was made of.
            return _Base(Path(source).resolve().name, metadata.get("base_model"), metadata)
        return _Base(source, source, metadata)

    def licence_text(self) -> str:
        """Of the weights, in a sentence."""
        if self.is_random:
            return "There is no base: the weights began at random."
        licence = self.metadata.get("license_name") or self.metadata.get("license")
        if licence:
            return f"Licence of the base, which holds for these weights too: {licence}."
        return f"For the licence see the base, {self.name}; its folder here does not name one."


def _metadata(card: ModelCard, base: _Base) -> dict[str, Any]:
    """The YAML of the card; what is not known is left out."""
    is_speaking = card.policy.speaks
    task = "text-generation" if card.policy.clip_span_s is None else "automatic-speech-recognition"
    if is_speaking:
        task = "text-to-speech"

    found: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task}
    if base.hub_id:
        found["base_model"] = base.hub_id
    for key in ("license", "license_name", "license_link", "language"):
        if key in base.metadata:
            found[key] = base.metadata[key]

    algorithm = card.run.get("algorithm")
    found["tags"] = ["lightning-audiorl", *([str(algorithm).lower()] if algorithm else [])]
    metrics = _known_metrics(card)
    if metrics:
        found["metrics"] = metrics
    return found


def _known_metrics(card: ModelCard) -> list[str]:
    results = (card.after or card.before or {}).get("results", {})
    known = []
    for name in _HUB_METRICS:
        values = [of_set.get(name, math.nan) for of_set in results.values()]
        if any(value is not None and math.isfinite(value) for value in values):
            known.append(name)
    return known


def _made_by(card: ModelCard, base: _Base) -> str:
    if not card.run and not card.rl_step:
        return f"The weights of {base.name}, as `audiorl export` wrote them; nothing has trained them since."
    algorithm = card.run.get("algorithm", "training")
    return f"The weights of {base.name} after {card.rl_step} steps of {algorithm}, trained with lightning-audiorl."


def _metrics(card: ModelCard) -> list[str]:
    """Before and after, set by set."""
    if card.before is None:
        return []
    first = card.before["results"]
    last = None if card.after is None else card.after["results"]
    labels = (f"step {card.before['rl_step']}", f"step {(card.after or card.before)['rl_step']}")
    table = metric_table(_numbers(first), None if last is None else _numbers(last), labels)
    return ["## Metrics", metric_note(first), f"```\n{table}\n```"]


def _numbers(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Results with NaN where a report or a checkpoint holds nothing."""
    found: dict[str, dict[str, float]] = {}
    for name, metrics in results.items():
        found[name] = {key: math.nan if v is None else float(v) for key, v in metrics.items()}
    return found


def _data(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    if not sets:
        return []
    rows = []
    for one in sets:
        hours = "-" if one["hours"] is None else f"{one['hours']:.2f}"
        share = "-" if one["share"] is None else _share(one["share"])
        rows.append([one["set"], one["source"], share, f"{one['rows']:,}", hours])
    return ["## Data", markdown_table(["set", "from", "share", "rows", "hours"], rows)]


def _share(share: float | Mapping[Any, float]) -> str:
    if isinstance(share, Mapping):
        return ", ".join(f"{value:g} from step {step}" for step, value in share.items())
    return f"{share:g}"


def _rewards(rewards: Sequence[Sequence[Any]]) -> list[str]:
    if not rewards:
        return []
    rows = [[name, kind, f"{weight:g}"] for name, kind, weight in rewards]
    return ["## Rewards", markdown_table(["reward", "class", "weight"], rows)]
