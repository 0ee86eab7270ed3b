"""What a frozen encoder made of clips is kept: which clips, within which budgets, and always the same bits."""

from __future__ import annotations

import copy
import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models import EncoderCache, Finetune
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.types import PromptBatch
from tests.helpers import assert_close
from tests.models.families import AUDIO_FAMILIES, POLICIES, SPECS, batch_of, make

_GIB = 2**30


def policy_with(family: str, cache: EncoderCache | None) -> CachedPromptPolicy:
    policy = make(family, lively=False)
    policy.encoder_cache = cache
    return policy


def features(policy: Any, batch: PromptBatch) -> list[Tensor]:
    """The encoder's output of each clip, without padding."""
    context = policy.encode(batch)
    keep = getattr(context, "keep", torch.ones(context.features.shape[:2], dtype=torch.bool))
    return [output[kept] for output, kept in zip(context.features, keep, strict=True)]


@pytest.mark.parametrize("family", AUDIO_FAMILIES)
def test_a_clip_is_encoded_once_and_to_what_it_is_without_a_cache(family: str) -> None:
    policy = policy_with(family, EncoderCache())
    batch = batch_of(["a", "b", "c"])
    first = policy.encode(batch)
    again = policy.encode(batch)
    assert policy.num_encoded == 3
    assert torch.equal(first.features, again.features)
    without = policy_with(family, None)
    plain = without.encode(batch)
    for found, output in zip(features(policy, batch), features(without, batch), strict=True):
        assert_close(found, output, "policy")
    assert first.prompt_lengths == plain.prompt_lengths
    for name, value in vars(plain).items():
        if isinstance(value, Tensor) and name != "features":
            assert torch.equal(value, getattr(first, name)), name


@pytest.mark.parametrize("family", AUDIO_FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_clip_gives_the_same_bits_in_any_batch_and_any_run(family: str, dtype: Any) -> None:
    """What a resumed run, another rank, or a run whose clips had to leave the cache would see."""
    together = features(policy_with(family, EncoderCache(dtype=dtype)), batch_of(["a", "b", "c"]))
    one_clip = together[0].nbytes / _GIB
    crowded = policy_with(family, EncoderCache(memory_gib=one_clip, dtype=dtype))
    others = features(crowded, batch_of(["c", "d", "a"]))
    assert torch.equal(others[0], together[2])
    assert torch.equal(others[2], together[0])
    once_more = features(crowded, batch_of(["a", "c"]))
    assert torch.equal(once_more[1], together[2])
    assert crowded.num_encoded > 3
    assert together[0].dtype == torch.float32
    assert (dtype == "bfloat16") == torch.equal(together[0], together[0].bfloat16().float())


def test_memory_stays_within_its_budget_and_the_oldest_leave() -> None:
    policy = policy_with("whisper", EncoderCache())
    size = policy.encode(batch_of(["a"])).features.nbytes
    cache = EncoderCache(memory_gib=2.5 * size / _GIB)
    policy.encoder_cache = cache
    for names in (["a", "b"], ["a"], ["c"]):
        policy.encode(batch_of(names))
    assert cache.num_bytes == 2 * size
    assert (cache.hits, cache.misses) == (1, 3)
    policy.encode(batch_of(["a", "c"]))
    assert (cache.hits, cache.misses) == (3, 3)
    policy.encode(batch_of(["b"]))
    assert cache.misses == 4
    assert cache.metrics() == {
        "encoder_cache/gib": 2 * size / _GIB,
        "encoder_cache/hit_share": 3 / 7,
    }
    cache.reset()
    assert list(cache.metrics()) == ["encoder_cache/gib"]


def test_half_the_memory_in_bfloat16() -> None:
    caches = [EncoderCache(), EncoderCache(dtype="bfloat16")]
    for cache in caches:
        policy_with("whisper", cache).encode(batch_of(["a"]))
    assert caches[0].num_bytes == 2 * caches[1].num_bytes > 0


def test_rows_that_do_not_come_again_are_encoded_together_and_not_kept() -> None:
    policy = policy_with("fun_asr_nano", EncoderCache())
    batch = batch_of(["a", "b", "c"])
    augmented = replace(batch, comes_again=torch.tensor([False, True, False]))
    mixed = features(policy, augmented)
    assert policy.num_encoded == 3
    features(policy, augmented.select([1, 2]))
    assert policy.num_encoded == 4
    plain = policy_with("fun_asr_nano", None)
    assert torch.equal(mixed[0], features(plain, batch.select([0, 2]))[0])
    none = replace(batch, comes_again=torch.zeros(3, dtype=torch.bool))
    assert all(map(torch.equal, features(policy, none), features(plain, batch)))


# --- what a clip's output depends on


def test_another_encoder_gets_nothing_of_the_first_ones() -> None:
    cache = EncoderCache()
    first = policy_with("whisper", cache)
    other = POLICIES["whisper"](replace(SPECS["whisper"], seed=1), encoder_cache=cache)
    batch = batch_of(["a"])
    assert not torch.equal(features(first, batch)[0], features(other, batch)[0])
    assert (first.num_encoded, other.num_encoded) == (1, 1)
    # The same weights by another way are the same encoder.
    third = policy_with("whisper", cache)
    assert torch.equal(features(third, batch)[0], features(first, batch)[0])
    assert third.num_encoded == 0


def test_weights_that_are_loaded_later_make_it_another_encoder() -> None:
    policy = policy_with("whisper", EncoderCache())
    batch = batch_of(["a"])
    before = features(policy, batch)[0]
    policy.load_state_dict(POLICIES["whisper"](replace(SPECS["whisper"], seed=1)).state_dict())
    assert not torch.equal(before, features(policy, batch)[0])
    assert policy.num_encoded == 2


def test_another_precision_is_encoded_anew() -> None:
    policy = policy_with("whisper", EncoderCache())
    batch = batch_of(["a"])
    features(policy, batch)
    with torch.autocast("cpu", torch.bfloat16):
        features(policy, batch)
    assert policy.num_encoded == 2
    features(policy, batch)
    assert policy.num_encoded == 2


def test_what_an_evaluation_has_encoded_can_be_trained_on() -> None:
    """Lightning evaluates in inference mode, whose tensors autograd does not take."""
    policy = policy_with("whisper", EncoderCache())
    batch = batch_of(["a", "b"])
    with torch.inference_mode():
        policy.encode(batch)
    context = policy.encode(batch)
    assert policy.num_encoded == 2
    policy.hidden(context, policy.targets(context, ["one", "two"])).sum().backward()
    grads = [p.grad for p in policy.trainable().values() if p.grad is not None]
    assert grads


# --- files


def folder_cache(folder: Path, **settings: Any) -> EncoderCache:
    return EncoderCache(memory_gib=0, folder=str(folder), **settings)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_process_finds_the_clips_in_the_folder(tmp_path: Path, dtype: Any) -> None:
    first = policy_with("fun_asr_nano", folder_cache(tmp_path / "kept", dtype=dtype))
    written = features(first, batch_of(["a", "b"]))
    second = policy_with("fun_asr_nano", folder_cache(tmp_path / "kept", dtype=dtype))
    read = features(second, batch_of(["b", "a"]))
    assert second.num_encoded == 0
    assert torch.equal(read[0], written[1])
    assert torch.equal(read[1], written[0])
    assert len(files_of(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.part"))


def test_float32_takes_nothing_from_files_in_bfloat16(tmp_path: Path) -> None:
    for dtype in ("bfloat16", "float32"):
        policy = policy_with("whisper", folder_cache(tmp_path, dtype=dtype))
        policy.encode(batch_of(["a"]))
        assert policy.num_encoded == 1
    assert len(files_of(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "foreign"])
def test_a_damaged_file_is_encoded_again_with_a_warning(tmp_path: Path, damage: str) -> None:
    batch = batch_of(["a"])
    good = features(policy_with("whisper", folder_cache(tmp_path)), batch)[0]
    [file] = files_of(tmp_path)
    content = file.read_bytes()
    changed = bytes([content[-1] ^ 1])
    damaged = {
        "cut": content[:-100],
        "changed": content[:-1] + changed,
        "empty": b"",
        "foreign": b"{}",
    }
    file.write_bytes(damaged[damage])

    policy = policy_with("whisper", folder_cache(tmp_path))
    with pytest.warns(UserWarning, match=rf"{file.name}.*encoded again"):
        again = features(policy, batch)[0]
    assert torch.equal(again, good)
    assert policy.num_encoded == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(features(policy_with("whisper", folder_cache(tmp_path)), batch)[0], good)


def test_the_folder_keeps_its_budget_and_the_oldest_go(tmp_path: Path) -> None:
    policy = policy_with("whisper", folder_cache(tmp_path))
    policy.encode(batch_of(["a"]))
    [first] = files_of(tmp_path)
    size = first.stat().st_size
    policy.encode(batch_of(["b"]))
    [second] = set(files_of(tmp_path)) - {first}
    # Used last, though it was written first.
    for age_s, file in ((1000, second), (2000, first)):
        os.utime(file, (file.stat().st_mtime - age_s,) * 2)
    features(policy, batch_of(["a"]))
    assert policy.num_encoded == 2

    policy.encoder_cache = folder_cache(tmp_path, disk_gib=2.5 * size / _GIB)
    policy.encode(batch_of(["c"]))
    left = files_of(tmp_path)
    assert len(left) == 2
    assert first in left
    assert second not in left


def test_what_a_killed_writer_left_is_taken_away(tmp_path: Path) -> None:
    policy = policy_with("whisper", folder_cache(tmp_path))
    policy.encode(batch_of(["a"]))
    folder = files_of(tmp_path)[0].parent
    old = folder / "x.part"
    fresh = folder / "y.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    policy.encoder_cache = folder_cache(tmp_path)
    policy.encode(batch_of(["b"]))
    assert not old.exists()
    assert fresh.exists()


def test_a_disk_that_takes_no_more_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_audiorl.models.encoded_files.save_file", full)
    policy = policy_with("whisper", EncoderCache(folder=str(tmp_path)))
    with pytest.warns(UserWarning, match="No space left") as said:
        policy.encode(batch_of(["a", "b"]))
    assert len(said) == 1
    policy.encode(batch_of(["a", "b"]))
    assert policy.num_encoded == 2


# --- settings


def test_an_encoder_that_trains_has_no_cache() -> None:
    with pytest.raises(ValueError, match=r"finetune\.encoder is true.*leave encoder_cache out"):
        POLICIES["whisper"](SPECS["whisper"], Finetune(encoder=True), encoder_cache=EncoderCache())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"memory_gib": -1}, "memory_gib"),
        ({"memory_gib": float("nan")}, "memory_gib"),
        ({"disk_gib": 0}, "disk_gib"),
        ({"memory_gib": 0}, "nothing would be kept"),
        ({"dtype": "float16"}, "float32 or bfloat16"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EncoderCache(**settings)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"EncoderCache\.folder: .* is a file"):
        EncoderCache(folder=str(tmp_path / "file"))


def test_a_copy_begins_empty_with_the_same_settings(tmp_path: Path) -> None:
    cache = EncoderCache(0.5, str(tmp_path), 2.0, "bfloat16")
    policy_with("whisper", cache).encode(batch_of(["a"]))
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.num_bytes == 0
        assert (other.memory_gib, other.folder, other.disk_gib, other.dtype) == (
            0.5,
            str(tmp_path),
            2.0,
            "bfloat16",
        )
