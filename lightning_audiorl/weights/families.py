"""Which kind of model a folder holds, and what of this library takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_TOKENIZATION_NAMES,
    MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_CTC_MAPPING_NAMES,
    MODEL_FOR_RNNT_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    MODEL_FOR_TDT_MAPPING_NAMES,
)

from lightning_audiorl.weights.folders import CONFIG, read_json
from lightning_audiorl.weights.tensors import WeightsError

# By the ``model_type`` of a Hugging Face configuration.
_TAKERS = {
    "fun_asr_nano": "FunAsrNanoPolicy",
    "qwen2_audio": "Qwen2AudioPolicy",
    "qwen3_asr": "Qwen3ASRPolicy",
    "granite_speech": "GraniteSpeechPolicy",
    "glmasr": "GlmAsrPolicy",
    "canary": "CanaryPolicy, and TransformersJudge with kind: seq2seq",
    "voxtral": "VoxtralPolicy",
    "moonshine": "MoonshinePolicy, and TransformersJudge with kind: seq2seq",
    "whisper": "WhisperPolicy, and TransformersJudge with kind: seq2seq",
    "csm": "CsmPolicy",
    "xcodec2": "Xcodec2Codec",
    "neucodec": "NeuCodecCodec",
}

# What a folder's own code is asked for, in transformers' words.
_ASKS_FOR_CODE = "trust_remote_code"

# By what our own folders say that they hold.
_OWN_TAKERS = {
    "LogMelGru": "CtcJudge",
    "MfccConv": "CtcJudge",
    "XvectorNetwork": "XvectorEncoder",
    "EcapaNetwork": "EcapaEncoder",
    "Token2Text": "Token2Text",
    "TinyCodec": "TinyCodec",
}


def what_it_is(config: dict[str, Any]) -> str:
    """What the object in a ``config.json`` describes, and what takes it, in a few words.

    Example:
        >>> what_it_is({"model_type": "whisper"})
        "a 'whisper', which WhisperPolicy, and TransformersJudge with kind: seq2seq take"
        >>> what_it_is({"kind": "MfccConv"})
        "a 'MfccConv', which CtcJudge takes"
    """
    own = config.get("kind") or config.get("codec")
    name = own or config.get("model_type")
    if not isinstance(name, str):
        return "a model of no known type (it has no model_type)"

    taker = _OWN_TAKERS.get(name) if own else _taker(name, config)
    if taker is None:
        known = "" if own else f" ({_known()})"
        return f"a {name!r}, which no class of this library takes{known}"
    verb = "take" if "," in taker else "takes"
    return f"a {name!r}, which {taker} {verb}"


def _known() -> str:
    """Families that have a policy, and how there comes to be another."""
    names = sorted(name for name, taker in _TAKERS.items() if "Policy" in taker)
    return (
        f"there are policies for {', '.join(names)} and language models of text, see docs/families.md; "
        "docs/new_family.md says how to add one"
    )


def _taker(model_type: str, config: dict[str, Any]) -> str | None:
    if model_type in _TAKERS:
        return _TAKERS[model_type]

    # A wav2vec2, say, may have the head of a recogniser or of a speaker encoder.
    takers = []
    if model_type in MODEL_FOR_CTC_MAPPING_NAMES:
        takers.append("TransformersJudge with kind: ctc")
    if is_transducer(config):
        takers.append("TransformersJudge with kind: transducer")
    if model_type in MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES:
        takers.append("TransformersSpeakerEncoder")
    if is_encoder_decoder(config) and model_type in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        takers.append("TransformersJudge with kind: seq2seq")
    if model_type in MODEL_FOR_AUDIO_TOKENIZATION_NAMES:
        takers.append("AudioTokenizationCodec")
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        takers += ["TextLMPolicy", "SpeechLMPolicy"]
    return ", ".join(takers) or None


def is_encoder_decoder(config: dict[str, Any]) -> bool:
    """Whether a model reads audio in an encoder and writes text in a decoder that attends to it."""
    return bool(config.get("is_encoder_decoder"))


def is_transducer(config: dict[str, Any]) -> bool:
    """Whether a recogniser is a transducer (RNN-T, TDT)."""
    return config.get("model_type") in MODEL_FOR_RNNT_MAPPING_NAMES or is_tdt(config)


def is_tdt(config: dict[str, Any]) -> bool:
    """Whether a recogniser is a transducer that says how long each token lasts."""
    return config.get("model_type") in MODEL_FOR_TDT_MAPPING_NAMES


def read_config(source: str, revision: str | None = None) -> Any:
    """The transformers configuration of a folder or hub id.

    Raises:
        WeightsError: for one that transformers cannot read, or does not know, or that wants code of its own to be run.
        OSError: where a hub id cannot be reached; a note names it, and what to do.
    """
    file = Path(source) / CONFIG
    if file.is_file():
        values = read_json(file)
        if not values.get("model_type"):
            raise WeightsError(
                f"{file}: is no model of transformers; it describes {what_it_is(values)}"
            )
        if values["model_type"] not in CONFIG_MAPPING:
            raise WeightsError(_unknown(source, values))
    try:
        # Else transformers asks on the terminal, and waits.
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except OSError as error:
        # It says what went wrong, and not with what.
        error.add_note(
            f"{source} is neither a folder here nor among what this machine has of the hub; run `hf download {source}` "
            "where there is a network, or give the folder of a checkpoint"
        )
        raise
    except Exception as error:  # values of the wrong kind fail in many ways
        if wants_code(error):
            raise WeightsError(f"{source}: {REFUSED_CODE}") from error
        raise WeightsError(
            f"{source}: its config.json cannot be read ({first_line(error)}); copy or download it again"
        ) from error


#: Of a folder whose files name Python code beside them.
REFUSED_CODE = (
    "wants Python code of its own to be run (auto_map), which is never done here; read that code, and load the model "
    "by a class of your own, as docs/new_family.md says"
)


def wants_code(error: Exception) -> bool:
    """Whether transformers ended since it was not allowed to run code of a folder."""
    return _ASKS_FOR_CODE in str(error)


def _unknown(source: str, values: dict[str, Any]) -> str:
    """Of a ``model_type`` that transformers has no class for."""
    name = values["model_type"]
    what = (
        f"{source}: holds a {name!r}, which transformers {transformers.__version__} does not know"
    )
    if values.get("auto_map"):
        return f"{what}, and {REFUSED_CODE} ({_known()})"
    return f"{what}, nor does a class of this library ({_known()})"


def require_family(config: Any, model_class: Any, who: str, source: str) -> None:
    """See that a configuration is of the models that a class loads.

    Args:
        config: of transformers.
        model_class: a class of models, or an Auto class.
        who: wants it, for the error.
        source: folder or hub id, for the error.

    Raises:
        WeightsError: saying what the folder holds, and what takes that.
    """
    config_class = getattr(model_class, "config_class", None)
    if config_class is not None:
        fits = type(config) is config_class
    else:
        # Whisper's decoder alone is among the causal language models, too: here it would come without its encoder.
        is_text = model_class.__name__ in ("AutoModelForCausalLM", "AnyCausalLM")
        fits = type(config) in model_class._model_mapping
        fits = fits and not (is_text and config.is_encoder_decoder)
    if not fits:
        raise WeightsError(
            f"{who}: {source} holds {what_it_is(config.to_dict())}; give a folder of its own family"
        )


def first_line(error: BaseException) -> str:
    """An error in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
