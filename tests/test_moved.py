"""Old names of modules go on working: imports, class paths and pickles of before the folders moved."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import pytest

from lightning_audiorl.moved import MOVED

PACKAGE = "lightning_audiorl"

# Every module that there was before the first move.
OLD_MODULES = """
algorithms algorithms.base algorithms.diffro algorithms.diffro_filters algorithms.evaluated algorithms.evaluation
algorithms.filters algorithms.gradients algorithms.grpo algorithms.grpo_diffro algorithms.micro_batches
algorithms.optim algorithms.prediction algorithms.ranks algorithms.refill algorithms.relaxation algorithms.relaxed
algorithms.sampled algorithms.sft algorithms.step algorithms.unrolled
calibration
callbacks callbacks.checkpoint callbacks.common callbacks.early_stop callbacks.export callbacks.figures
callbacks.guards callbacks.hacking callbacks.history callbacks.plots callbacks.prediction_progress
callbacks.progress callbacks.recordings callbacks.report callbacks.samples callbacks.speech callbacks.surroundings
cli
codecs codecs.base codecs.cosyvoice codecs.hf codecs.tiny codecs.training
commands
data data.audio data.augment data.batching data.construct data.content data.datamodule data.draws data.effects
data.espeak data.espeak_digits data.espeak_engine data.fsdd data.hypotheses data.hypothesis_lines
data.hypothesis_parts data.hypothesis_summary data.manifest data.manifest_lines data.nonspeech data.padding
data.prediction data.rl_build data.rl_datamodule data.rl_subsets data.rl_summary data.rl_writer data.rows
data.speech data.speech.corpora data.speech.datamodule data.speech.filters data.speech.hard_texts
data.speech.manifest data.speech.prompt_quality data.speech.rows data.speech.sample_filters data.speech.texts
data.streams data.subsets data.subsets.base data.subsets.decoded data.subsets.metadata data.subsets.samples
data.subsets.texts data.targets
judges judges.base judges.ctc judges.ctc_training judges.networks judges.pitch judges.pretrained judges.quality
judges.sharing judges.speaker_training judges.speakers judges.training judges.vocoded
metrics metrics.asr metrics.evaluation metrics.functional metrics.speech metrics.watch
models models.biased_head models.cache models.cached_prompt models.clips models.decoder_only models.encoder_decoder
models.finetune models.fun_asr_nano models.loading models.packed models.policy models.reference models.sampling
models.speech_codes models.speech_context models.speech_limits models.speech_lm models.speech_templates
models.text_lm models.tiny models.tiny_speech models.tokens models.whisper
ops ops.advantages ops.importance ops.join ops.kl ops.logprobs ops.masks ops.objectives ops.randomness ops.reduce
ops.relax
planner planner.command planner.meter planner.placement planner.report planner.settings planner.skeleton
planner.working
prediction
rewards rewards.asr rewards.base rewards.differentiable rewards.mix rewards.speech rewards.speech_shape
strategies strategies.ddp strategies.fsdp strategies.ledger strategies.mixin strategies.parts strategies.phases
strategies.placement strategies.single
text text.errors text.hallucination text.keywords text.normalise
token2text token2text.labels token2text.network token2text.training token2text.validation
types
"""

# What the configurations, pages and notebooks of that time name: module -> classes.
OLD_CLASSES = {
    "algorithms": "DiffRO GRPO GRPODiffRO PositiveAdvantage SFT StopEmitted",
    "codecs": "CodecTraining TinyCodec TinyCodecConfig Xcodec2Codec",
    "data": "AsrDataModule AsrRLDataModule Degraded EspeakCorpus EspeakDigits FsddDigits JoinedRows NonSpeech",
    "data.speech": (
        "EspeakSpeech Filters FsddSpeech PassRate PromptClipping PromptDuration PromptedSpeech Similar Stops "
        "TextCharset TextSpeech Texts TokenRate TtsDataModule TtsRLDataModule"
    ),
    "data.subsets": "Hallucinating Hard Length RandomControl",
    "judges": (
        "CtcJudge CtcTraining EcapaEncoder EcapaNetwork LogMelGru MfccConv SpeakerTraining TransformersJudge "
        "TransformersSpeakerEncoder XvectorEncoder XvectorNetwork"
    ),
    "metrics": "SpeechEvaluation",
    "models": "FunAsrNanoPolicy LlasaTemplate SpeechLMPolicy TextLMPolicy TinyFunAsrNano TinySpeechLM",
    "models.biased_head": "AnyCausalLM",
    "ops": "GRPO MWER",
    "rewards": (
        "Accuracy DifferentiableMix DurationConsistency Hallucination HeadLikelihood Keyword LengthError "
        "RewardMix SpeakerSimilarity SpeechAccuracy SpeechBounds TextLikelihood"
    ),
    "strategies": "PhaseSingleDevice",
    "token2text": "Token2Text Token2TextTraining",
}

# As users wrote them.
OLD_IMPORTS = """
from lightning_audiorl.callbacks.speech import mel_figure
from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.data.audio import read_audio
from lightning_audiorl.data.manifest import read_manifest
from lightning_audiorl.data.speech import TtsDataModule
from lightning_audiorl.data.speech.manifest import SpeechManifest
from lightning_audiorl.judges import AsrJudge
from lightning_audiorl.judges import SquimQuality
from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.judges import f0_spread_semitones, voiced_f0_hz
from lightning_audiorl.models import Finetune
from lightning_audiorl.models import FunAsrNanoPolicy
from lightning_audiorl.models import SpeechLMPolicy
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.finetune import Finetune, merge_lora
from lightning_audiorl.models.tiny import TinyWhisper, build_whisper
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.models.whisper import WhisperPolicy
from lightning_audiorl.rewards import Accuracy
from lightning_audiorl.rewards import PredictedQuality
from lightning_audiorl.rewards import SpeechAccuracy
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Decoding
from lightning_audiorl.types import Hypothesis, Speech, Utterance
from lightning_audiorl.types import Hypothesis, Utterance
from lightning_audiorl.types import Speech
from lightning_audiorl.data import espeak, manifest_lines, subsets
from lightning_audiorl.data.nonspeech import PREFIX
from lightning_audiorl.data.speech import hard_texts, prompt_quality
from lightning_audiorl.data.speech import *
from lightning_audiorl.models import packed
from lightning_audiorl.planner import Settings, trace
from lightning_audiorl.planner.placement import plan
import lightning_audiorl.data.manifest_lines
import lightning_audiorl.data.speech.manifest
import lightning_audiorl.models.biased_head as biased_head
"""


def old(name: str) -> str:
    return f"{PACKAGE}.{name}"


@pytest.mark.parametrize("name", OLD_MODULES.split())
def test_every_old_module_imports(name: str) -> None:
    module = importlib.import_module(old(name))
    assert importlib.import_module(old(name)) is module
    assert sys.modules[old(name)] is module


def test_an_old_name_is_the_module_itself() -> None:
    packages = {name for name in MOVED if any(other.startswith(f"{name}.") for other in MOVED)}
    for name in MOVED.keys() - packages:
        module = importlib.import_module(old(name))
        assert module is importlib.import_module(old(MOVED[name]))
        assert module.__name__ == module.__spec__.name == old(MOVED[name])


def test_the_table_names_moved_modules_alone() -> None:
    assert set(MOVED) <= set(OLD_MODULES.split())
    for name, new in MOVED.items():
        importlib.import_module(old(new))
        assert new not in MOVED, f"{name}: give the last name"


@pytest.mark.parametrize(
    "path", [f"{module}.{name}" for module, names in OLD_CLASSES.items() for name in names.split()]
)
def test_every_old_class_path_resolves(path: str) -> None:
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(old(module)), name)
    assert kind.__name__ == name


@pytest.mark.parametrize("line", OLD_IMPORTS.strip().splitlines())
def test_every_old_import_works(line: str) -> None:
    names: dict[str, object] = {}
    exec(line, names)
    assert len(names) > 1


def test_old_imports_in_a_fresh_process() -> None:
    """Whatever comes first, and without hiding the packages that have an old module's name."""
    lines = [line for line in OLD_IMPORTS.strip().splitlines() if ".data" in line]
    check = """
import lightning_audiorl.data
from lightning_audiorl.data.speech import hard_texts
assert lightning_audiorl.data.manifest.__name__ == "lightning_audiorl.data.manifest"
assert lightning_audiorl.data.hard_texts is hard_texts and callable(hard_texts)
"""
    subprocess.run([sys.executable, "-c", "\n".join([*lines, check])], check=True, timeout=200)


def test_pickles_of_the_old_names() -> None:
    for path in (
        "data.speech.manifest.SpeechManifest",
        "data.rows.RowSource",
        "data.audio.AudioCache",
        "models.tiny.TinyWhisper",
    ):
        module, _, name = path.rpartition(".")
        kind = pickle.loads(f"c{old(module)}\n{name}\n.".encode())
        assert kind is getattr(importlib.import_module(old(module)), name)


def test_a_name_that_never_was() -> None:
    with pytest.raises(
        ModuleNotFoundError, match=r"No module named 'lightning_audiorl.data.speech.melodies'"
    ):
        importlib.import_module(old("data.speech.melodies"))
    with pytest.raises(AttributeError, match="Melodies"):
        importlib.import_module(old("data.speech")).Melodies  # noqa: B018
