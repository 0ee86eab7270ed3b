"""Models and processors of transformers, loaded whole: what ``from_pretrained`` would fill in at random is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_audiorl.weights.adapters import base_of, find_adapter, merge_adapter
from lightning_audiorl.weights.families import (
    REFUSED_CODE,
    first_line,
    read_config,
    require_family,
    wants_code,
)
from lightning_audiorl.weights.folders import check_folder, check_json
from lightning_audiorl.weights.tensors import WeightsError, misfit, require_finite

# What published folders leave out since only pretraining reads it; nobody here pretrains an encoder.
_PRETRAINING_ONLY = re.compile(r"(^|\.)masked_spec_embed$")

# A start that transformers looks at by itself would come with its adapters beside the weights, and not in them.
_NO_ADAPTER = {"subfolder": "adapters are merged here"}

# One file of each is there, in the format of today first.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
# Mistral's own vocabulary holds its settings, too.
_MISTRAL_VOCABULARY = "tekken.json"
_EXTRACTOR_SETTINGS = ("preprocessor_config.json", "processor_config.json")

_COPY = "copy it from the model that this one was made of"


def config_of(source: str, revision: str | None = None) -> Any:
    """The transformers configuration of a folder or hub id; of an adapter, that of its base.

    Raises:
        WeightsError: for one that transformers cannot read or does not know, and for an adapter without its base.
        OSError: where a hub id cannot be reached.
    """
    adapter = find_adapter(source, revision)
    base = source if adapter is None else base_of(source, adapter)
    return read_config(base, revision if base == source else None)


def load_pretrained(
    model_class: Any,
    processor_class: Any,
    source: str,
    who: str,
    revision: str | None = None,
    **how: Any,
) -> tuple[Any, Any]:
    """(model, processor) of a folder or hub id: safetensors only, no remote code, every tensor from there.

    A folder with an adapter of peft is the base with the adapter merged: the base beside it, else the one that its
    ``base_model_name_or_path`` names. The processor of an adapter without a base beside it is its own where it has a
    tokenizer, else that of its base.

    Args:
        model_class: with ``from_pretrained``: a class of models, or an Auto class.
        processor_class: with ``from_pretrained``: of processors, tokenizers or feature extractors.
        source: folder or hub id.
        who: wants them, for errors.
        revision: of a hub id.
        how: of the model's ``from_pretrained``, such as ``dtype``.

    Raises:
        FileNotFoundError: for files that are not there.
        WeightsError: for another family's folder, damaged files, tensors that are missing, not the model's, of another
            shape, NaN or infinite; for an adapter whose base is not found, or that does not fit it.
    """
    adapter = find_adapter(source, revision)
    base = source if adapter is None else base_of(source, adapter)
    base_revision = revision if base == source else None
    if Path(base).is_dir():
        check_folder(base)
    config = read_config(base, base_revision)
    require_family(config, model_class, who, base)
    _require_generation_config(base, config)

    # The processor first: a missing file shall not cost the time to load the weights.
    has_its_own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
    place = source if has_its_own else base
    place_revision = revision if place == source else None
    processor = load_processor(processor_class, place, who, place_revision)

    try:
        with _no_load_report():
            model, info = model_class.from_pretrained(
                base,
                revision=base_revision,
                use_safetensors=True,
                output_loading_info=True,
                # They are refused below, by name.
                ignore_mismatched_sizes=True,
                adapter_kwargs=_NO_ADAPTER,
                **how,
            )
    except Exception as error:
        name = model_class.__name__
        raise WeightsError(
            f"{who}: {base} cannot be loaded as {name}: {first_line(error)}"
        ) from error

    _require_loaded(info, base, f"a {type(model).__name__}")
    require_finite(model.state_dict(), base)
    if adapter is None:
        return model, processor

    model = merge_adapter(model, adapter, source)
    require_finite(model.state_dict(), source)
    return model, processor


def _require_generation_config(source: str, config: Any) -> None:
    """Of Whisper it holds the languages and the tokens of its prompt; transformers would go on without them."""
    folder = Path(source)
    if config.model_type != "whisper" or not folder.is_dir():
        return
    if not (folder / "generation_config.json").is_file():
        raise FileNotFoundError(
            f"folder {source} has no generation_config.json, which holds Whisper's languages and prompt tokens; {_COPY}"
        )


def _require_loaded(info: dict[str, Any], source: str, what: str) -> None:
    """See in transformers' own account that all tensors came from the folder; those that are tied are no part of it."""
    missing = {name for name in info["missing_keys"] if not _PRETRAINING_ONLY.search(name)}
    reshaped = {name: (read, own) for name, read, own in info["mismatched_keys"]}
    # A tensor of another shape is among the missing, too.
    missing -= reshaped.keys()

    differing = misfit(missing, info["unexpected_keys"], reshaped)
    if differing:
        raise WeightsError(
            f"{source}: its weights are not those of {what} of its config.json: {differing}; copy or download it again"
        )
    if info["error_msgs"]:
        raise WeightsError(f"{source}: {first_line(ValueError(info['error_msgs'][0]))}")


@contextmanager
def _no_load_report() -> Iterator[None]:
    """What transformers would print as a table is in the error."""
    logger = logging.getLogger("transformers.modeling_utils")
    # Not by its level, which also decides what transformers computes for its report.
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def load_processor(
    processor_class: Any,
    source: str,
    who: str,
    revision: str | None = None,
) -> Any:
    """The processor, tokenizer or feature extractor of a folder or hub id.

    Args:
        processor_class: with ``from_pretrained``.
        source: folder or hub id.
        who: wants it, for errors.
        revision: of a hub id.

    Raises:
        FileNotFoundError: for a file that is missing.
        WeightsError: for one that is broken.
    """
    if Path(source).is_dir():
        check_json(Path(source))
        _require_files(processor_class.__name__, Path(source))
    # Else transformers asks on the terminal, and waits; classes that are not looked up run none.
    how = {"trust_remote_code": False} if processor_class.__name__.startswith("Auto") else {}
    try:
        return processor_class.from_pretrained(source, revision=revision, **how)
    except Exception as error:
        if wants_code(error):
            raise WeightsError(f"{who}: {source} {REFUSED_CODE}") from error
        raise WeightsError(
            f"{who}: {source} holds a broken file of its tokenizer or feature extractor, or lacks one "
            f"({first_line(error)}); {_COPY}"
        ) from error


def _require_files(processor_class: str, folder: Path) -> None:
    """See that the files are there which a processor is made of."""
    needed: list[tuple[str, ...]] = []
    if "FeatureExtractor" not in processor_class:
        needed.append(_VOCABULARIES)
        if _is_mistrals(folder):
            _require_mistral_common(folder)
        else:
            needed.append(_TOKENIZER_SETTINGS)
    if "Tokenizer" not in processor_class:
        needed.append(_EXTRACTOR_SETTINGS)

    for names in needed:
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(f"folder {folder} has no {names[0]}; {_COPY}")


def _is_mistrals(folder: Path) -> bool:
    """Whether a folder has the tokenizer of mistral-common, and none of transformers, as the published Voxtral."""
    has_usual = (folder / "tokenizer.json").is_file()
    return (folder / _MISTRAL_VOCABULARY).is_file() and not has_usual


def _require_mistral_common(folder: Path) -> None:
    if find_spec("mistral_common") is None:
        raise WeightsError(
            f"{folder}: its tokenizer is {_MISTRAL_VOCABULARY}, which transformers reads by mistral-common; install "
            "it: pip install 'mistral-common[audio]'"
        )


def hide_progress_bars() -> None:
    """Have transformers draw none while it reads and writes weights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
