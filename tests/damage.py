"""Damage to a checkpoint or a model's folder, in every way that tests could think of; what is left must not load."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Kinds = dict[str, Callable[[Path], None]]

#: Longest error that a user is shown.
MAX_CHARACTERS = 900


def outcome(load: Callable[[], dict[str, Tensor]], whole: dict[str, Tensor], place: Path) -> str:
    """What became of the damage: "refused", in a short error that names the place, or "equal"; nothing else may be."""
    try:
        found = load()
    except (ValueError, OSError) as error:
        text = str(error)
        assert str(place) in text, f"does not name {place}: {text}"
        assert len(text) <= MAX_CHARACTERS, f"{len(text)} characters: {text}"
        return "refused"
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value), f"went on with another {name}"
    return "equal"


# --- any file


def cut(share: float, bytes_off: int = 0) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        whole = file.read_bytes()
        file.write_bytes(whole[: max(0, int(len(whole) * share) - bytes_off)])

    return damage


def flipped(share: float, num: int = 1, limit: int | None = None) -> Callable[[Path], None]:
    """``num`` bytes in a row, all their bits; the place is a share of the file, or of its first ``limit`` bytes."""

    def damage(file: Path) -> None:
        content = bytearray(file.read_bytes())
        first = int(min(len(content), limit or len(content)) * share)
        for place in range(first, min(first + num, len(content))):
            content[place] ^= 0xFF
        file.write_bytes(bytes(content))

    return damage


def replaced(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


# --- checkpoints


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """As somebody who loads a checkpoint, changes it and saves it."""

    def damage(file: Path) -> None:
        checkpoint = torch.load(file, weights_only=True)
        other = change(checkpoint)
        torch.save(checkpoint if other is None else other, file)

    return damage


def on_tensors(change: Callable[[dict[str, Tensor], str], Any]) -> Callable[[Path], None]:
    """A change to the trained tensors, given the name of a matrix among them."""

    def damage(checkpoint: dict[str, Any]) -> None:
        tensors = checkpoint["state_dict"]
        change(tensors, next(name for name, value in tensors.items() if value.ndim == 2))

    return edited(damage)


def put(value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor], str], None]:
    return lambda tensors, name: tensors.update({name: value(tensors[name].clone())})


def with_value(number: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[3] = number
        return tensor

    return change


def swapped(tensors: dict[str, Tensor], _: str) -> None:
    """Two of one shape and other values."""
    pairs = ((one, other) for one in tensors for other in tensors)
    one, other = next(
        (one, other)
        for one, other in pairs
        if tensors[one].shape == tensors[other].shape
        and not torch.equal(tensors[one], tensors[other])
    )
    first = tensors[one]
    tensors[one] = tensors[other]
    tensors[other] = first


def renamed(tensors: dict[str, Tensor], name: str) -> None:
    tensors[f"{name}_"] = tensors.pop(name)


def of_optimizer(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def damage(checkpoint: dict[str, Any]) -> None:
        first = checkpoint["optimizer_states"][0]["state"][0]
        first["exp_avg"] = change(first["exp_avg"].clone())

    return edited(damage)


def without(*path: str) -> Callable[[Path], None]:
    """An entry removed, by its keys from the outside in."""

    def damage(checkpoint: dict[str, Any]) -> None:
        inner = checkpoint
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return edited(damage)


def listing_more(checkpoint: dict[str, Any]) -> None:
    checkpoint["audiorl"]["tensors"].append("policy.model.more")


def listing_a_text(checkpoint: dict[str, Any]) -> None:
    checkpoint["audiorl"] = "none"


def recording(**values: Any) -> Callable[[Path], None]:
    """Other values in the record of the run."""
    return edited(lambda checkpoint: checkpoint["audiorl"].update(values))


CHECKPOINTS: Kinds = {
    **{f"cut at {share:.0%}": cut(share) for share in (0.0, 0.01, 0.3, 0.6, 0.9)},
    "its last byte gone": cut(1.0, 1),
    "its directory gone": cut(1.0, 22),
    "one byte left": replaced(b"P"),
    **{
        f"byte at {share:.0%} flipped": flipped(share)
        for share in torch.arange(0, 1, 0.05).tolist()
    },
    "sixty bytes flipped": flipped(0.5, 60),
    "text": replaced(b"step 3: wer 12.5\n" * 50),
    "json": replaced(b"{}"),
    "a program": replaced(b"\x7fELF" + bytes(200)),
    "an empty archive": replaced(b"PK\x05\x06" + bytes(18)),
    "a list": edited(lambda _: [1, 2]),
    "a bare tensor": edited(lambda _: torch.zeros(3)),
    "no entry at all": edited(lambda _: {}),
    "of another library": without("audiorl"),
    "a text as its record": edited(listing_a_text),
    "no start_hash": without("audiorl", "start_hash"),
    "no start": without("audiorl", "start"),
    "no list": without("audiorl", "tensors"),
    "a start without a source": recording(start={}),
    "a start of an unknown kind": recording(start={"source": {"kind": "Tiny"}, "checkpoints": []}),
    "a start that is gone": recording(start={"source": "./gone", "checkpoints": []}),
    "a start on a checkpoint that is gone": recording(
        start={"source": {"kind": "TinyCausalLM"}, "checkpoints": ["./gone.ckpt"]}
    ),
    "a number as its list": recording(tensors=3),
    "hashes as a list": recording(hashes=["a"]),
    "hashes of nothing": recording(hashes={}),
    "no rl_step": without("audiorl", "rl_step"),
    "no state_dict": without("state_dict"),
    "nothing trained": edited(lambda checkpoint: checkpoint.update(state_dict={})),
    "a list of more than there are": edited(listing_more),
    "a tensor missing": on_tensors(lambda tensors, name: tensors.pop(name) is None),
    "a tensor renamed": on_tensors(renamed),
    "a tensor too many": on_tensors(lambda tensors, _: tensors.update(odd=torch.zeros(1))),
    "two tensors swapped": on_tensors(swapped),
    "reshaped": on_tensors(put(lambda tensor: tensor.view(1, -1))),
    "transposed": on_tensors(put(lambda tensor: tensor.T.contiguous())),
    "half precision": on_tensors(put(lambda tensor: tensor.half())),
    "double precision": on_tensors(put(lambda tensor: tensor.double())),
    "whole numbers": on_tensors(put(lambda tensor: tensor.long())),
    "one value changed": on_tensors(put(with_value(0.125))),
    "NaN": on_tensors(put(with_value(float("nan")))),
    "infinity": on_tensors(put(with_value(float("inf")))),
    "no hash": without("audiorl", "hashes"),
    "the optimizer's value changed": of_optimizer(with_value(0.125)),
    "NaN in the optimizer": of_optimizer(with_value(float("nan"))),
    "the optimizer's tensor missing": edited(
        lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].pop("exp_avg") is None
    ),
}


# --- folders in Hugging Face layout

WEIGHTS = "model.safetensors"


def on_file(name: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: damage(folder / name)


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def on_weights(change: Callable[[dict[str, Tensor], str], Any]) -> Callable[[Path], None]:
    """A change to the tensors of a folder, given the name of a matrix among them."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors, next(name for name in sorted(tensors) if tensors[name].ndim == 2))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def in_json(name: str, **values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | values))

    return damage


def without_a_layer(tensors: dict[str, Tensor], _: str) -> None:
    for name in [name for name in tensors if "layers.0." in name]:
        del tensors[name]


def sharded(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same model in two files and an index, and then damaged."""

    def both(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        names = sorted(tensors)
        index = {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            file = f"model-{number:05d}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
            index.update(dict.fromkeys(part, file))
        (folder / WEIGHTS).unlink()
        content = {"metadata": {"total_size": 0}, "weight_map": index}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(content))
        damage(folder)

    return both


SHARD = "model-00002-of-00002.safetensors"


def in_both_shards(folder: Path) -> None:
    first = load_file(folder / "model-00001-of-00002.safetensors")
    name, value = next(iter(first.items()))
    save_file(load_file(folder / SHARD) | {name: value + 1}, folder / SHARD, {"format": "pt"})


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def huge_header(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + content[8:])


FOLDERS: Kinds = {
    **{
        f"weights cut at {share:.0%}": on_file(WEIGHTS, cut(share))
        for share in (0.0, 0.001, 0.02, 0.5, 0.95)
    },
    "weights' last byte gone": on_file(WEIGHTS, cut(1.0, 1)),
    "weights longer than they say": on_file(
        WEIGHTS, lambda file: file.write_bytes(file.read_bytes() + b"x") and None
    ),
    **{
        f"header byte at {share:.0%} flipped": on_file(WEIGHTS, flipped(share, limit=1000))
        for share in torch.arange(0, 1, 0.1).tolist()
    },
    "a header of a terabyte": huge_header,
    "text as weights": on_file(WEIGHTS, replaced(b"version https://git-lfs.github.com/spec/v1\n")),
    "no weights": gone(WEIGHTS),
    "weights as a pickle": pickled,
    "a tensor missing": on_weights(lambda tensors, name: tensors.pop(name) is None),
    "a layer missing": on_weights(without_a_layer),
    "a tensor renamed": on_weights(renamed),
    "a tensor too many": on_weights(lambda tensors, _: tensors.update(odd=torch.zeros(1))),
    "no tensor": on_weights(lambda tensors, _: tensors.clear()),
    "reshaped": on_weights(put(lambda tensor: tensor.view(1, -1))),
    "NaN": on_weights(put(with_value(float("nan")))),
    "infinity": on_weights(put(with_value(float("-inf")))),
    "double precision": on_weights(put(lambda tensor: tensor.double())),
    "no config.json": gone("config.json"),
    **{
        f"{name} {how}": on_file(name, replaced(content))
        for name in (
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        )
        for how, content in (
            ("empty", b""),
            ("cut", b'{"a": '),
            ("a list", b"[1]"),
            ("binary", b"\xff\xfe\x00"),
        )
    },
    "config.json without a type": on_file("config.json", replaced(b"{}")),
    "config.json of an unknown type": in_json("config.json", model_type="no_such_model"),
    "config.json of a judge": on_file(
        "config.json", replaced(b'{"kind": "MfccConv", "sizes": {}}')
    ),
    "config.json of a codec": on_file("config.json", replaced(b'{"codec": "TinyCodec"}')),
    "config.json of bert": on_file("config.json", replaced(b'{"model_type": "bert"}')),
    "config.json of a CTC model": on_file("config.json", replaced(b'{"model_type": "wav2vec2"}')),
    "no tokenizer.json": gone("tokenizer.json"),
    "no tokenizer_config.json": gone("tokenizer_config.json"),
    "tokenizer.json without content": on_file("tokenizer.json", replaced(b"{}")),
    "tokenizer_config.json without content": on_file("tokenizer_config.json", replaced(b"{}")),
    "sharded": sharded(lambda folder: None),
    "a shard missing": sharded(gone(SHARD)),
    "a shard cut": sharded(on_file(SHARD, cut(0.7))),
    "a shard empty": sharded(on_file(SHARD, cut(0.0))),
    "an index without a list": sharded(on_file(f"{WEIGHTS}.index.json", replaced(b"{}"))),
    "an index cut": sharded(on_file(f"{WEIGHTS}.index.json", cut(0.5))),
    "a tensor in both shards": sharded(in_both_shards),
    "an adapter without weights": on_file(
        "adapter_config.json",
        replaced(b'{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}'),
    ),
    "an adapter's settings cut": on_file("adapter_config.json", replaced(b'{"peft_type": ')),
}
