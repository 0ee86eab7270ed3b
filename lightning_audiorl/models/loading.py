"""Where starting weights come from: a Hugging Face folder or hub id, a Lightning checkpoint, a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl import outline
from lightning_audiorl.models.finetune import Finetune, base_dtypes, inject_lora, merge_lora
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.models.tiny_base import TINY_SPECS, TinySpec
from lightning_audiorl.weights.adapters import find_adapter
from lightning_audiorl.weights.checkpoints import other_vocabulary, read_checkpoint
from lightning_audiorl.weights.families import first_line, require_family
from lightning_audiorl.weights.pretrained import config_of, load_pretrained
from lightning_audiorl.weights.tensors import WeightsError, misfit


@dataclass(frozen=True)
class Start:
    """A resolved ``init_from``.

    Args:
        source: what builds the model: a folder, a hub id, or a tiny spec.
        checkpoints: Lightning checkpoints whose trainable tensors go on top, oldest first.
    """

    source: str | TinySpec
    checkpoints: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Plain data for a checkpoint; `from_record` reads it back."""
        source: str | dict[str, Any]
        if isinstance(self.source, str):
            source = self.source
        else:
            source = {"kind": type(self.source).__name__, **asdict(self.source)}
        return {"source": source, "checkpoints": list(self.checkpoints)}

    @staticmethod
    def from_record(record: dict[str, Any]) -> Start:
        """The start that `record` was called on."""
        source = record["source"]
        if isinstance(source, dict):
            # A checkpoint may have turned tuples into lists, and the first ones did not say of which family they are.
            sizes: dict[str, Any] = {}
            for name, value in source.items():
                sizes[name] = tuple(value) if isinstance(value, list) else value
            kind = sizes.pop("kind", "TinyFunAsrNano")
            source = TINY_SPECS[kind](**sizes)
        return Start(source, list(record["checkpoints"]))

    def load_into(
        self,
        policy: nn.Module,
        backbone: nn.Module,
        vocabulary: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Put the checkpoints' trainable tensors on top of the source's weights; adapters are merged into them.

        Args:
            policy: the whole model.
            backbone: its part that adapters belong to.
            vocabulary: hash of what its tokens stand for; None where it has no tokenizer. Asked where there is a
                checkpoint.

        Raises:
            ValueError: for a checkpoint with foreign tensors, with adapters of unknown rank, or whose run began from
                other weights than these: a folder exported anew would otherwise mix two models without a sign.
        """
        if outline.wanted():  # there are no values to put the tensors on
            return

        for path in self.checkpoints:
            checkpoint = read_checkpoint(path)
            weights: dict[str, Tensor] = {
                k.removeprefix("policy."): v for k, v in checkpoint["state_dict"].items()
            }

            # Adapters as that run had them, to take its values; what this run trains comes later.
            if any("lora_" in key for key in weights):
                finetune = checkpoint["audiorl"].get("finetune")
                if finetune is None:
                    raise ValueError(
                        f"{path}: holds LoRA adapters and does not say of which rank and scale, as checkpoints of "
                        "earlier versions; let `audiorl fit --ckpt_path` end that run, and give its export as init_from"
                    )
                inject_lora(backbone, Finetune(**finetune))

            own = policy.state_dict()
            reshaped = {
                name: (value.shape, own[name].shape)
                for name, value in weights.items()
                if name in own and own[name].shape != value.shape
            }
            differing = misfit((), weights.keys() - own.keys(), reshaped)
            if differing:
                raise ValueError(
                    f"{path}: its tensors do not belong to this model, a {type(policy).__name__}: {differing}"
                )

            before = checkpoint["audiorl"].get("vocabulary")
            if before is not None and before != vocabulary():
                raise ValueError(f"{path}: {other_vocabulary(self.source)}")

            # Of the fresh model: what the run did not train must be what it began from.
            # Loaded in another precision than the run had, the hash cannot tell; earlier builds did not write it down.
            if checkpoint["audiorl"].get("dtypes", ["torch.float32"]) == base_dtypes(policy):
                self._check_base(policy, path, checkpoint["audiorl"]["start_hash"], weights)
            policy.load_state_dict(weights, strict=False)
            merge_lora(policy)

    def _check_base(
        self, policy: nn.Module, path: str, start_hash: str, weights: dict[str, Tensor]
    ) -> None:
        own = policy.state_dict()
        if any(own[key].dtype != value.dtype for key, value in weights.items()):
            return  # loaded in another precision: the hash cannot tell
        if content_hash(policy) != start_hash:
            raise ValueError(
                f"{path}: its run began from other weights than {self.source} now holds (content hash {start_hash}, "
                f"here {content_hash(policy)}); restore that start, or give an exported folder as init_from"
            )


def read_start(init_from: str | TinySpec) -> Start:
    """Resolve ``init_from``.

    Example:
        >>> read_start("openai/whisper-tiny")
        Start(source='openai/whisper-tiny', checkpoints=[])
        >>> read_start("./no/such/folder")
        Traceback (most recent call last):
            ...
        FileNotFoundError: init_from: no folder ./no/such/folder (a hub id has the form owner/name)

    Raises:
        FileNotFoundError: for a path that looks local and is not there.
        ValueError: for a checkpoint that is not ours.
    """
    if not isinstance(init_from, str):
        return Start(init_from)

    path = Path(init_from).expanduser()
    if init_from.endswith(".ckpt"):
        # That run's own start, and on top of it what it trained.
        start = _start_of(read_checkpoint(path), init_from)
        return Start(start.source, [*start.checkpoints, str(path.resolve())])

    if path.is_dir():
        # A folder that holds an adapter alone names its base.
        if not (path / "config.json").is_file() and find_adapter(str(path)) is None:
            raise FileNotFoundError(
                f"init_from: folder {init_from} has no config.json; give a Hugging Face folder"
            )
        return Start(str(path))

    if init_from.startswith((".", "/", "~")) or init_from.count("/") != 1:
        raise FileNotFoundError(
            f"init_from: no folder {init_from} (a hub id has the form owner/name)"
        )
    return Start(init_from)


def _start_of(checkpoint: dict[str, Any], path: str) -> Start:
    """What the run of a checkpoint began from, seen to be there still.

    Raises:
        WeightsError: where the checkpoint does not say it.
        FileNotFoundError: where it is gone.
    """
    try:
        start = Start.from_record(checkpoint["audiorl"]["start"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not say what its run began from, or names a tiny model of a module that is not imported "
            f"({first_line(error)})"
        ) from error

    gone = [place for place in start.checkpoints if not Path(place).is_file()]
    if isinstance(start.source, str):
        try:
            read_start(start.source)
        except FileNotFoundError:
            gone.append(start.source)
    if gone:
        raise FileNotFoundError(
            f"{path}: its run began from {gone[0]}, which is not here; put it back, or give an exported folder as "
            "init_from"
        )
    return start


@dataclass(frozen=True)
class Family:
    """The classes that a family's models are loaded with.

    Args:
        tiny: sizes of its tiny model.
        model: with ``from_pretrained``.
        processor: with ``from_pretrained``; where there is no audio to be read, a tokenizer.
    """

    tiny: type[TinySpec]
    model: Any
    processor: Any


def build(
    start: Start,
    family: Family,
    dtype: str,
    revision: str | None,
    who: str = "init_from",
) -> tuple[Any, Any]:
    """(model, processor) of a start; see `load_pretrained`. The start's checkpoints come on top later.

    Args:
        start: what `read_start` resolved.
        family: what loads it.
        dtype: of the weights; a tiny model is float32.
        revision: hub revision.
        who: wants them, for errors.

    Raises:
        ValueError: for the tiny spec of another family; for what `load_pretrained` refuses.
    """
    if isinstance(start.source, family.tiny):
        with torch.device("meta") if outline.wanted() else nullcontext():
            # The family's own builder, also where the sizes are those of a family derived from it.
            return family.tiny.build(start.source)
    if not isinstance(start.source, str):
        raise ValueError(
            f"init_from: the start is a {type(start.source).__name__}; expected {family.tiny.__name__}"
        )
    if outline.wanted():
        return _outlined(start.source, family.model, who, getattr(torch, dtype), revision)

    # FunAsrNano reads its adaptor's attention implementation only from here, and ignores padding without one.
    model, processor = load_pretrained(
        family.model,
        family.processor,
        start.source,
        who,
        revision,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
    )

    _require_tokenizer(processor, model, start.source)

    # Out of the mapped file: an export to the same folder would change them, and at its odd addresses the same product
    # gives other last bits than in the reference's copy.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model, processor


def _require_tokenizer(processor: Any, model: Any, source: str) -> None:
    """See that a tokenizer knows its special tokens, and none that the model has no row for."""
    tokenizer = getattr(processor, "tokenizer", processor)
    # A model that speaks may end its texts with a token of its template, and have no special ones.
    settings = Path(source) / "tokenizer_config.json"
    is_whole = not Path(source).is_dir() or (
        settings.is_file() and json.loads(settings.read_text())
    )
    if not tokenizer.all_special_ids and not is_whole:
        raise WeightsError(
            f"{source}: its tokenizer has no special token, so no token ends a text; copy tokenizer_config.json from "
            "the model that this one was made of"
        )

    # Tokens that were added later may have no row; a text does not hold them.
    num_rows = model.config.get_text_config().vocab_size
    # What speaks may have a vocabulary of codes beside that of texts.
    num_rows = getattr(model.config, "text_vocab_size", num_rows)
    if tokenizer.vocab_size > num_rows:
        raise WeightsError(
            f"{source}: its tokenizer has {tokenizer.vocab_size} tokens, and its model {num_rows}; copy the "
            "tokenizer of the model that this one was made of"
        )


def require_features(source: object, **wanted: tuple[object, object]) -> None:
    """See that a feature extractor makes what a model reads.

    Args:
        source: of both, for errors.
        wanted: by the extractor's setting, its value and that of the model.

    Raises:
        WeightsError: naming the first that differs.
    """
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise WeightsError(
                f"{source}: the {name} of its feature extractor is {found}, and its model wants {expected}; copy "
                "preprocessor_config.json (or processor_config.json) from the model that this one was made of"
            )


@dataclass
class TokenizerOutline:
    """Stands for a tokenizer, and for the processor around one, where a model is made of its configuration alone.

    Args:
        size: number of tokens.
        audio_token_id: the placeholder of an audio frame, where the model has one.
    """

    size: int
    audio_token_id: int | None = None
    eos_token_id: int = 0
    all_special_ids: tuple[int, ...] = ()
    added_tokens_decoder: dict[int, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.size

    @property
    def tokenizer(self) -> TokenizerOutline:
        """Itself: the tokenizer of a processor."""
        return self


def _outlined(
    source: str,
    model_class: Any,
    who: str,
    dtype: torch.dtype,
    revision: str | None,
) -> tuple[Any, TokenizerOutline]:
    """(model, processor) of ``config.json`` alone, that of the base where there is an adapter.

    Raises:
        FileNotFoundError: where there is none.
        WeightsError: for that of another family.
    """
    try:
        config = config_of(source, revision)
    except OSError as error:
        raise FileNotFoundError(
            f"plan: no config.json of {source} is here, nor can one be fetched; give a folder that holds it"
        ) from error
    require_family(config, model_class, who, source)
    config._attn_implementation = "sdpa"
    tokenizer = TokenizerOutline(
        config.get_text_config().vocab_size, getattr(config, "audio_token_id", None)
    )
    return outline.from_config(model_class, config, dtype), tokenizer


def stop_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The generation config's end tokens, else the tokenizer's."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = tokenizer.eos_token_id
    if isinstance(ids, list | tuple):
        return list(ids)
    return [int(ids)]
