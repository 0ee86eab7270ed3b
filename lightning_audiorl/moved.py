"""Modules that have moved: their old names go on working, in imports, as YAML class paths and in pickles.

An import of an old name gives the module itself, not a second copy of it, so that its classes are the same under both
names. Old names that are the names of packages now (``data.audio``, ``data.manifest``, ``data.hypotheses``,
``judges.training``, ``commands``) are not in the table: those packages export what the modules held.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old name -> new name, both below this package.
MOVED = {
    "algorithms.base": "algorithms",
    "algorithms.diffro_filters": "losses.diffro.filters",
    "algorithms.evaluated": "engine.evaluation_hooks",
    "algorithms.evaluation": "engine.evaluator",
    "algorithms.filters": "losses.sample_filters",
    "algorithms.gradients": "losses.combine",
    "algorithms.micro_batches": "engine.micro_batches",
    "algorithms.optim": "engine.optim",
    "algorithms.prediction": "engine.predict_module",
    "algorithms.ranks": "engine.distributed",
    "algorithms.refill": "engine.dynamic_sampling",
    "algorithms.relaxation": "losses.diffro.relaxation",
    "algorithms.relaxed": "losses.diffro.loss",
    "algorithms.sampled": "engine.rollout",
    "algorithms.step": "losses.step",
    "algorithms.unrolled": "losses.diffro.unrolled",
    "calibration": "commands.calibrate",
    "callbacks.common": "callbacks.outputs",
    "callbacks.figures": "callbacks.metric_table",
    "callbacks.speech": "callbacks.spoken_samples",
    "callbacks.surroundings": "callbacks.environment",
    "data.augment": "data.audio.augment",
    "data.batching": "data.datamodules.batching",
    "data.construct": "data.transforms.concatenate",
    "data.content": "data.audio.content_hash",
    "data.datamodule": "data.datamodules.asr",
    "data.effects": "data.audio.effects",
    "data.espeak": "data.corpora.espeak",
    "data.espeak_digits": "data.corpora.espeak_digits",
    "data.espeak_engine": "data.corpora.espeak_engine",
    "data.fsdd": "data.corpora.fsdd",
    "data.hypothesis_lines": "data.hypotheses.schema",
    "data.hypothesis_parts": "data.hypotheses.writer",
    "data.hypothesis_summary": "data.hypotheses.summary",
    "data.manifest_lines": "data.manifest.schema",
    "data.nonspeech": "data.audio.nonspeech",
    "data.padding": "data.transforms.noise_padding",
    "data.prediction": "data.datamodules.predict",
    "data.rl_build": "data.mix.build",
    "data.rl_datamodule": "data.datamodules.asr_rl",
    "data.rl_subsets": "data.mix.spec",
    "data.rl_summary": "data.mix.summary",
    "data.rl_writer": "data.mix.writer",
    "data.rows": "data.manifest.source",
    "data.speech": "data",
    "data.speech.corpora": "data.corpora.tts",
    "data.speech.datamodule": "data.datamodules.tts",
    "data.speech.filters": "data.mix.selection.by_tts_text",
    "data.speech.hard_texts": "data.corpora.hard_texts",
    "data.speech.manifest": "data.manifest.tts",
    "data.speech.prompt_quality": "data.mix.selection.by_prompt_quality",
    "data.speech.rows": "data.corpora.speaker_prompts",
    "data.speech.sample_filters": "data.mix.selection.by_tts_samples",
    "data.speech.texts": "data.corpora.texts",
    "data.streams": "data.datamodules.streams",
    "data.subsets": "data.mix.selection",
    "data.subsets.base": "data.mix.selection.base",
    "data.subsets.decoded": "data.mix.selection.by_hypotheses",
    "data.subsets.metadata": "data.mix.selection.by_metadata",
    "data.subsets.samples": "data.mix.selection.hypothesis_choice",
    "data.subsets.texts": "data.mix.selection.by_text",
    "data.targets": "data.manifest.targets",
    "judges.ctc": "judges.models.ctc",
    "judges.ctc_training": "judges.training.ctc",
    "judges.networks": "judges.models.networks",
    "judges.pretrained": "judges",
    "judges.quality": "judges.models.quality",
    "judges.sharing": "judges.panel",
    "judges.speaker_training": "judges.training.speaker",
    "judges.speakers": "judges.models.speakers",
    "judges.vocoded": "judges.training.vocoded",
    "models.biased_head": "models.tts.biased_head",
    "models.cache": "models.decoding.cache",
    "models.cached_prompt": "models.decoding.cached_prompt",
    "models.clips": "models.decoding.clips",
    "models.decoder_only": "models.decoding.decoder_only",
    "models.encoder_decoder": "models.decoding.encoder_decoder",
    "models.fun_asr_nano": "models.asr.fun_asr_nano",
    "models.packed": "models.decoding.shared_prefix",
    "models.sampling": "models.decoding.sampling",
    "models.speech_codes": "models.tts.codes",
    "models.speech_context": "models.tts.context",
    "models.speech_limits": "models.tts.limits",
    "models.speech_lm": "models.tts.speech_lm",
    "models.speech_templates": "models.tts.templates",
    "models.text_lm": "models.tts.text_lm",
    "models.tiny_speech": "models.tiny",
    "models.tokens": "models.decoding.tokens",
    "models.whisper": "models.asr.whisper",
    "planner": "commands.plan",
    "planner.command": "commands.plan.command",
    "planner.meter": "commands.plan.meter",
    "planner.placement": "commands.plan.placement",
    "planner.report": "commands.plan.report",
    "planner.settings": "commands.plan.settings",
    "planner.skeleton": "commands.plan.skeleton",
    "planner.working": "commands.plan.working",
    "prediction": "commands.predict",
}

_ROOT = __name__.rpartition(".")[0]


class _OldPackage(ModuleType):
    """A package that is gone: it has what another one has, and its own old modules below it.

    It cannot be the other package itself. Python sets a module on its package when it imports it, and
    ``data.speech.manifest`` would take the place of ``data.manifest``.
    """

    def __init__(self, name: str, new: ModuleType) -> None:
        super().__init__(name, new.__doc__)
        self.__dict__["_new"] = new
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_new"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What the package exported stays in front of a module of that name: the function `hard_texts` is one.
        if not (isinstance(value, ModuleType) and name in self.__dict__["_new"].__all__):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return dir(self.__dict__["_new"])


class _OldName(Loader):
    """Loads the module of the new name under the old one."""

    def __init__(self, new: str, is_package: bool) -> None:
        self.new, self.is_package = new, is_package

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.new)
        if self.is_package:
            return _OldPackage(spec.name, module)

        self.true_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The module ran when it was imported by its new name. The import of the old one has put its spec in.
        if not self.is_package:
            module.__spec__ = self.true_spec


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = fullname.removeprefix(f"{_ROOT}.")
        if old == fullname or old not in MOVED:
            return None

        is_package = any(name.startswith(f"{old}.") for name in MOVED)
        return ModuleSpec(
            fullname, _OldName(f"{_ROOT}.{MOVED[old]}", is_package), is_package=is_package
        )


def install() -> None:
    """Let imports of the old names find the modules. It goes before the finder of files, which would look for them."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
