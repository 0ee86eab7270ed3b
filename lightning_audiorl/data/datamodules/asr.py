"""Batches of audio prompts for training (one per RL step) and for several named evaluation sets."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.data.audio.augment import Augment
from lightning_audiorl.data.audio.bad_rows import OnBadRow, read_row
from lightning_audiorl.data.audio.reading import AudioCache, read_audio
from lightning_audiorl.data.datamodules.bad_rows import (
    first_usable,
    say_left_out,
    without_bad_rows,
)
from lightning_audiorl.data.datamodules.batching import (
    Draw,
    MixEntry,
    StepSampler,
    duration_batches,
    refill_draws,
)
from lightning_audiorl.data.datamodules.facts import name_of, set_facts
from lightning_audiorl.data.datamodules.lengths import (
    LengthLimits,
    check_limits,
    length_limits,
    padded_durations,
)
from lightning_audiorl.data.datamodules.streams import EvalStream, Position, StepStream
from lightning_audiorl.data.manifest.files import IndexedManifest, ManifestRows
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.mix.shares import Share
from lightning_audiorl.data.transforms.hotwords import Hotwords
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import PromptBatch, Utterance


@dataclass
class Subset:
    """A part of the training mix.

    Args:
        source: rows, or the path of a JSONL manifest.
        share: weight against the other subsets; ``{0: 1.0, 200: 0.5}`` changes it from step 200 on.

    Example:
        >>> Subset("train.jsonl", share={0: 1.0, 200: 0.5})
        Subset(source='train.jsonl', share={0: 1.0, 200: 0.5})
    """

    source: RowSource | str
    share: Share = 1.0


def collate(rows: Sequence[Utterance], waves: Sequence[Tensor], sample_rate_hz: int) -> PromptBatch:
    """B rows with their audio, zeros after a clip's end: waveform [B, longest].

    Example:
        >>> rows = [Utterance("a", (), "one", 0.2), Utterance("b", (), "two", 0.1)]
        >>> batch = collate(rows, [torch.ones(2), torch.ones(1)], sample_rate_hz=10)
        >>> batch.waveform.tolist(), batch.num_samples.tolist()
        ([[1.0, 1.0], [1.0, 0.0]], [2, 1])
    """
    num_samples = torch.tensor([len(wave) for wave in waves])
    return PromptBatch(
        pad_sequence(list(waves), batch_first=True), num_samples, sample_rate_hz, tuple(rows)
    )


def _rank_and_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class AsrDataModule(LightningDataModule):
    """Audio prompts with reference texts, for SFT and RL alike.

    The training loader has no length: the algorithm ends the run, and sets ``next_step`` after every step so that a
    resumed run goes on with exactly the batch that follows. A training row's id is ``<id>@<subset>.<epoch>``: unique
    within the run however often the row is drawn.

    Args:
        train: the training mix, or its one source: rows, or the path of a JSONL manifest.
        val: validation sets by name: rows or manifest paths. Metrics are logged as ``val/<name>/...``.
        test: test sets by name.
        predict: prediction sets by name.
        batch_size: prompts per RL step, over all ranks.
        pool: steps whose rows are drawn together and batched by duration (see `StepSampler`); 1 is off.
        max_batch_s: padded seconds per evaluation batch, each clip at what the policy computes it as: Whisper's take
            30 s each. Batches go from the longest rows to the shortest; where ``trainer.limit_val_batches`` or the like
            is set, each is drawn from the whole set.
        max_eval_batch_size: rows per evaluation batch.
        sample_rate_hz: what the model wants.
        seed: keys order and augmentation.
        num_workers: loader processes; 0 reads in the training process.
        augment: changes to training audio; None leaves it as it is.
        max_duration_s: longest clip; None is what the policy takes, no limit where it does not say.
        on_too_long: error names a row that is too long or too short; skip leaves such rows out and counts them.
        cache_bytes: memory for decoded short clips, per process.
        min_duration_s: shortest clip; None is what the policy takes, no limit where it does not say.
        on_bad_row: error stops where the audio of a row cannot be used (cut, empty, NaN, offset or duration beyond
            the file), with manifest, line and field; skip counts such rows. Lines of manifests that are given by
            their paths are treated alike. A manifest with ``on_bad_row: skip`` of its own has its rows skipped either
            way. In training another row of the source takes the place of a bad one, the same in every run with this
            seed; the audio of evaluation sets is then read once before the first batch, and bad rows are left out.
        lang: language of rows that name none, in manifests that are given by their paths; None is "en".
        hotwords: which words the prompts of training rows name, drawn anew at each step; None names those of the
            rows' field ``hotwords`` alone. Evaluation sets have theirs by `WithHotwords`.

    Raises:
        ValueError: a limit that is no number above 0, or limits between which no clip fits; another choice than error
            or skip.

    Attributes:
        bad_rows: draws of the training mix that were replaced in this process, by what is wrong with them.
        num_bad_rows: rows left out of evaluation sets for their audio, by set name.
    """

    def __init__(
        self,
        train: list[Subset] | RowSource | str | None = None,
        val: dict[str, RowSource | str] | None = None,
        test: dict[str, RowSource | str] | None = None,
        predict: dict[str, RowSource | str] | None = None,
        batch_size: int = 8,
        pool: int = 1,
        max_batch_s: float = 120.0,
        max_eval_batch_size: int = 64,
        sample_rate_hz: int = 16000,
        seed: int = 0,
        num_workers: int = 0,
        augment: Augment | None = None,
        max_duration_s: float | None = None,
        on_too_long: Literal["error", "skip"] = "error",
        cache_bytes: int = 256 * 2**20,
        min_duration_s: float | None = None,
        on_bad_row: OnBadRow = "error",
        lang: str | None = None,
        hotwords: Hotwords | None = None,
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val or {}
        self.test = test or {}
        self.predict = predict or {}

        self.batch_size = batch_size
        self.pool = pool
        self.max_batch_s = max_batch_s
        self.max_eval_batch_size = max_eval_batch_size

        check_count("AsrDataModule.batch_size", batch_size, at_least=1)
        check_count("AsrDataModule.pool", pool, at_least=1)
        check_number("AsrDataModule.max_batch_s", max_batch_s, above=0, infinite=True)
        check_count("AsrDataModule.max_eval_batch_size", max_eval_batch_size, at_least=1)
        check_count("AsrDataModule.sample_rate_hz", sample_rate_hz, at_least=1)
        check_count("AsrDataModule.num_workers", num_workers)
        check_count("AsrDataModule.cache_bytes", cache_bytes)
        if max_duration_s is not None:
            check_number("AsrDataModule.max_duration_s", max_duration_s, above=0, infinite=True)

        self.sample_rate_hz = sample_rate_hz
        self.seed = seed
        self.num_workers = num_workers
        self.augment = augment
        check_limits(min_duration_s, max_duration_s)
        for name, choice in (("on_too_long", on_too_long), ("on_bad_row", on_bad_row)):
            if choice not in ("error", "skip"):
                raise ValueError(f"AsrDataModule.{name}: want error or skip, got {choice!r}")
        self.min_duration_s = min_duration_s
        self.max_duration_s = max_duration_s
        self.on_too_long = on_too_long
        self.on_bad_row = on_bad_row
        self.lang = lang
        self.hotwords = hotwords

        self.cache = AudioCache(cache_bytes)
        #: Rows left out for their length, by set name ("train/0" is the first subset).
        self.num_too_long: dict[str, int] = {}
        self.num_too_short: dict[str, int] = {}
        self.bad_rows: Counter[str] = Counter()
        self.num_bad_rows: dict[str, int] = {}
        self._position = Position()
        # By the names that `rows` takes.
        self._sources: dict[str, RowSource] = {}

    @property
    def next_step(self) -> int:
        """The RL step that the next training batch is for."""
        return self._position.next_step

    @next_step.setter
    def next_step(self, step: int) -> None:
        self._position.next_step = step

    @property
    def val_names(self) -> list[str]:
        """Names of the validation sets, in the order of their loaders."""
        return list(self.val)

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of their loaders."""
        return list(self.test)

    @property
    def predict_names(self) -> list[str]:
        """Names of the prediction sets, in the order of their loaders."""
        return list(self.predict)

    def rows(self, name: str) -> RowSource:
        """The rows of ``train/<number>``, ``val/<name>``, ``test/<name>`` or ``predict/<name>``, lengths checked.

        Raises:
            KeyError: no such set.
            ManifestError, ValueError: bad manifest rows; a row that is too long or too short.
        """
        if name not in self._sources:
            kind, _, key = name.partition("/")
            sets = self._sets(kind)
            if key not in sets:
                raise KeyError(f"no data set {name!r}; {kind} has {', '.join(sets) or 'none'}")

            source = sets[key]
            if isinstance(source, str):
                source = ManifestRows(source, on_bad_row=self.on_bad_row, lang=self.lang)
            rows = self._limit(source, name, lazily=kind == "train")
            if kind != "train":
                rows = self.usable(rows, name)
            self._sources[name] = rows
        return self._sources[name]

    def usable(self, rows: RowSource, name: str) -> RowSource:
        """``rows`` without those whose audio is bad, where they may be skipped; they are counted in ``num_bad_rows``.

        Raises:
            AudioError: no row is left.
        """
        usable, problems = without_bad_rows(rows, name, self._read, self.on_bad_row)
        self.num_bad_rows[name] = len(problems)
        return usable

    def _sets(self, kind: str) -> Mapping[str, RowSource | str]:
        """The sets of one kind; none of a kind that does not exist."""
        if kind == "train":
            return {label: subset.source for label, subset in self._train_sets().items()}
        return {"val": self.val, "test": self.test, "predict": self.predict}.get(kind, {})

    def facts(self) -> list[dict[str, Any]]:
        """The sets that a fit trains on and watches: name, source, share, rows, and hours of those from a manifest."""
        facts = []
        for label, subset in self._train_sets().items():
            name = f"train/{label}"
            said = set_facts(
                name, self._source(label), self.rows(name), subset.source, subset.share
            )
            facts.append(said)
        for label, source in self.val.items():
            name = f"val/{label}"
            facts.append(set_facts(name, name_of(source), self.rows(name), source))
        return facts

    def _source(self, label: str) -> str:
        """Where a training subset comes from, in words."""
        return name_of(self._train_sets()[label].source)

    def state_dict(self) -> dict[str, Any]:
        """The position in the training order, which is all that a resume needs."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_step = int(state_dict["next_step"])

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        mix = self._mix()
        rank, num_ranks = _rank_and_size()

        def sampler(start_step: int) -> StepSampler:
            return StepSampler(
                mix, self.batch_size, self.seed, start_step, pool=self.pool, min_rows=num_ranks
            )

        # Settings that cannot be are said here, not by a loader process.
        sampler(0)

        batches = StepStream(sampler, self._train_batch, self._position, rank, num_ranks)
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers)

    def refill(self, step: int, attempt: int, num_prompts: int) -> PromptBatch:
        """Further training rows for one RL step, drawn by the shares of that step and augmented like any other.

        The same arguments give the same rows in every run with this seed, wherever the training order stands. Ids are
        ``<id>@<subset>.r<step>.<attempt>``, which no row of the training order has. No row comes twice in one call
        while the mix has another one.

        Args:
            step: the RL step.
            attempt: counts the refills of this step; another attempt draws afresh.
            num_prompts: rows for this rank, the same number on every rank; ranks get different rows.

        Raises:
            ValueError: ``num_prompts`` below 1, or no source with a share at this step.
            AudioError: see `read_audio`.
        """
        rank, num_ranks = _rank_and_size()
        # Every rank makes the same draws, so no row is drawn on two of them.
        draws = refill_draws(self._mix(), num_prompts * num_ranks, self.seed, step, attempt)
        first = rank * num_prompts
        batch = self._train_batch(draws[first : first + num_prompts], step)
        self._note(batch)
        return batch

    def val_dataloader(self) -> list[DataLoader[PromptBatch]]:
        return [self._eval_loader(f"val/{name}") for name in self.val]

    def test_dataloader(self) -> list[DataLoader[PromptBatch]]:
        return [self._eval_loader(f"test/{name}") for name in self.test]

    def predict_dataloader(self) -> list[DataLoader[PromptBatch]]:
        return [self._eval_loader(f"predict/{name}") for name in self.predict]

    def _train_sets(self) -> dict[str, Subset]:
        """The subsets of the mix by their name, which is part of their rows' ids."""
        if isinstance(self.train, str | RowSource):
            subsets = [Subset(self.train)]
        else:
            subsets = self.train or []
        return {str(number): subset for number, subset in enumerate(subsets)}

    def _mix(self) -> list[MixEntry]:
        subsets = self._train_sets()
        if not subsets:
            raise ValueError(
                "AsrDataModule: `train` is empty; give a list of subsets or a manifest path"
            )

        mix = []
        for label, subset in subsets.items():
            rows = self.rows(f"train/{label}")
            mix.append(MixEntry(rows, subset.share))
        return mix

    def _eval_loader(self, name: str) -> DataLoader[PromptBatch]:
        rows = self.rows(name)
        rank, num_ranks = _rank_and_size()
        durations = [row.duration_s for row in rows]
        batches = duration_batches(
            durations,
            self.max_batch_s,
            self.max_eval_batch_size,
            num_ranks,
            rank,
            order=self._eval_order(name, len(rows)),
            padded_s=padded_durations(durations, self.trainer),
        )

        def build(index: list[int]) -> PromptBatch:
            return self.load([rows[i] for i in index])

        # Lightning warns of any iterable data set with a length; here each worker gives its own part, so it is right.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return DataLoader(EvalStream(batches, build), batch_size=None, num_workers=self.num_workers)

    def _eval_order(self, name: str, num_rows: int) -> list[int] | None:
        """The order in which batches of an evaluation set are cut; None is by duration.

        Where Trainer lets only some batches through, the first of any number are a draw of the set, not its longest
        rows.
        """
        kind = name.partition("/")[0]
        limit = getattr(self.trainer, f"limit_{kind}_batches", 1.0)
        if isinstance(limit, float) and limit >= 1.0:
            return None
        generator = keyed_generator("evaluation", name)
        order: list[int] = torch.randperm(num_rows, generator=generator).tolist()
        return order

    def load(self, rows: Sequence[Utterance]) -> PromptBatch:
        """Read the audio of ``rows`` as it is: one batch.

        Raises:
            AudioError: audio that cannot be used; names manifest, line, field and file.
        """
        return self._batch(rows, [self._checked(row) for row in rows])

    def _checked(self, row: Utterance) -> Any:
        """What `_read` makes of a row; `BadRow` where that fails."""
        return read_row(row, self._read, self.on_bad_row)

    def _read(self, row: Utterance) -> Any:
        """What a batch needs of a row: its [num_samples]."""
        return read_audio(row, self.sample_rate_hz, self.cache)

    def _batch(self, rows: Sequence[Utterance], read: Sequence[Any]) -> PromptBatch:
        """One batch of rows and what was read of each."""
        return collate(rows, read, self.sample_rate_hz)

    def _train_batch(self, draws: list[Draw], step: int) -> PromptBatch:
        rows: list[Utterance] = []
        read: list[Any] = []
        bad_rows: Counter[str] = Counter()
        for draw in draws:
            num_rows = len(self.rows(self._set_of(draw)))
            (row, audio), problems = first_usable(draw, num_rows, self.seed, self._read_draw)
            bad_rows.update(problems)

            if self.augment is not None:
                audio = self.augment.apply(audio, self.seed, step, row.id, self.sample_rate_hz)
                row = replace(row, duration_s=len(audio) / self.sample_rate_hz)
            if self.hotwords is not None:
                row = self.hotwords.apply(row, self.seed, step)

            rows.append(row)
            read.append(audio)
        # What is augmented sounds otherwise each time.
        comes_again = None if self.augment is None else torch.zeros(len(rows), dtype=torch.bool)
        batch = self._batch(rows, read)
        return replace(batch, bad_rows=dict(bad_rows), comes_again=comes_again)

    def _read_draw(self, draw: Draw) -> tuple[Utterance, Any]:
        """The row of a draw with the id that it has in the batch, and what was read of it."""
        row, row_id = self._drawn(draw)
        # Read before it gets its new id, so that errors name the row as the source has it.
        audio = self._checked(row)
        return replace(row, id=row_id), audio

    def on_before_batch_transfer(self, batch: PromptBatch, dataloader_idx: int) -> PromptBatch:
        """Count the bad rows of a batch, which a loader process may have met."""
        self._note(batch)
        return batch

    def _note(self, batch: PromptBatch) -> None:
        new = [problem for problem in batch.bad_rows if problem not in self.bad_rows]
        say_left_out("training mix", new, before=len(self.bad_rows))
        self.bad_rows.update(batch.bad_rows)

    def _drawn(self, draw: Draw) -> tuple[Utterance, str]:
        """The row of a draw, as its source has it, and the id that it has in the batch."""
        name = self._set_of(draw)
        row = self.rows(name)[draw.row]
        self._limits_of(name).check(row, name)
        return row, f"{row.id}@{name.removeprefix('train/')}.{draw.epoch}"

    def _set_of(self, draw: Draw) -> str:
        label = list(self._train_sets())[draw.source]
        return f"train/{label}"

    def _limits_of(self, name: str) -> LengthLimits:
        """How long the clips of a set may be, in this trainer."""
        evaluates = name.partition("/")[0] in ("val", "test")
        return length_limits(self.min_duration_s, self.max_duration_s, self.trainer, evaluates)

    def _limit(self, rows: RowSource, name: str, lazily: bool) -> RowSource:
        """Rows within the length limits. A lazily built training source is checked when its rows are drawn."""
        limits = self._limits_of(name)
        if limits.min_s is None and limits.max_s is None:
            return rows

        if self.on_too_long == "error":
            # Only rows of a manifest are cheap to look at.
            if isinstance(rows, ManifestRows | IndexedManifest) or not lazily:
                for row in rows:
                    limits.check(row, name)
            return rows

        kept, num_too_long, num_too_short = limits.within(rows, name)
        self.num_too_long[name] = num_too_long
        self.num_too_short[name] = num_too_short
        return kept
