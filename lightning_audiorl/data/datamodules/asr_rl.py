"""The data module of RL: a mix of subsets, chosen by rules, built once and kept clear of every evaluation row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from lightning_audiorl.data.datamodules.asr import AsrDataModule, Subset
from lightning_audiorl.data.datamodules.facts import name_of_subset
from lightning_audiorl.data.manifest.files import IndexedManifest
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.mix.build import MixPlan, read_summary
from lightning_audiorl.data.mix.spec import RLSubset, check_subsets, shares
from lightning_audiorl.data.mix.writer import open_built
from lightning_audiorl.types import Utterance


class AsrRLDataModule(AsrDataModule):
    """`AsrDataModule` whose training mix is chosen from larger sources by subset builders.

    ``prepare_data`` builds the mix into ``<cache_dir>/<key>`` (manifests that say why each row was chosen, and a
    summary), or finds it there when nothing that went into it has changed. No row enters that shares audio with a
    validation, test or forbidden row, compared by content (`EvaluationContent`). Lightning calls ``prepare_data`` in
    one process; the others only read, so ``cache_dir`` must be one that all of them see. Validation and testing alone
    build nothing.

    A training row's id is ``<id>@<subset>.<epoch>``; its ``extra`` holds ``subset`` and ``chosen_because``.

    Args:
        subsets: the parts of the mix by name, in the order in which shares are dealt out.
        forbid: further sets that no training row may touch, rows or manifest paths by name.
        cache_dir: folder of built mixes.
        content_cache: sqlite file of content hashes; None is ``$XDG_CACHE_HOME/lightning_audiorl/content.sqlite``.
        settings: those of `AsrDataModule`, but for ``train``; ``seed`` also draws among rows of equal rank.

    Raises:
        ValueError: no subset, a bad name, shares that do not add up to 1, a builder without the hypotheses it needs, or
            one that follows a subset which does not exist.
    """

    def __init__(
        self,
        subsets: dict[str, RLSubset],
        forbid: dict[str, RowSource | str] | None = None,
        cache_dir: str = "runs/rl_data",
        content_cache: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(train=None, **settings)
        check_subsets(subsets)
        self.subsets = {name: self._with_lang(subset) for name, subset in subsets.items()}
        self.forbid = forbid or {}
        self.cache_dir = cache_dir
        self.content_cache = content_cache

        # Known once the inputs have been looked at, and once the built mix is open.
        self._folder: Path | None = None
        self._built: dict[str, Subset] | None = None

    def _with_lang(self, subset: RLSubset) -> RLSubset:
        """The subset, its manifest opened with the language of rows that name none, where one is set."""
        if self.lang is None or not isinstance(subset.source, str):
            return subset
        rows = IndexedManifest(
            subset.source,
            allow_empty_text=subset.allow_empty_text,
            on_bad_row=self.on_bad_row,
            lang=self.lang,
        )
        return replace(subset, source=rows)

    @property
    def folder(self) -> Path:
        """Where the mix of these settings and inputs is, or will be. Inputs are looked at once."""
        if self._folder is None:
            self._folder = self._plan().folder()
        return self._folder

    @property
    def summary(self) -> dict[str, Any]:
        """What the built mix consists of: rows seen, removed, refused and kept, hours, lengths, overlap."""
        return read_summary(self.folder)

    def prepare_data(self) -> None:
        """Build the mix, or find that it is there; says in a few lines what it consists of.

        Raises:
            ValueError: an empty subset, saying which rule removed how many rows; hypotheses that are of other rows.
            AudioError, ManifestError, FileNotFoundError: bad input.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return

        self._folder = self._plan().build()
        # It may be another mix than the one that was open.
        self._built = None
        self._sources = {
            name: rows for name, rows in self._sources.items() if not name.startswith("train/")
        }

    def setup(self, stage: str) -> None:
        """Open the built mix for training.

        Raises:
            FileNotFoundError: it has not been built where this process looks.
        """
        if stage == TrainerFn.FITTING:
            self._train_sets()

    def _train_sets(self) -> dict[str, Subset]:
        """The subsets of the built mix, opened at the first call."""
        if self._built is None:
            if not self.folder.is_dir():
                raise FileNotFoundError(
                    f"{self.folder.absolute()}: the training mix is not built here; call prepare_data first, and with "
                    "several machines make cache_dir a folder that all of them share"
                )
            share_of = shares(self.subsets)
            self._built = {}
            for name in self.subsets:
                rows = open_built(self.folder, name)
                self._built[name] = Subset(rows, share_of[name])
        return self._built

    def _source(self, label: str) -> str:
        return name_of_subset(self.subsets[label])

    def _plan(self) -> MixPlan:
        kept_out: dict[str, Sequence[Utterance]] = {}
        kinds = {"val": self.val, "test": self.test, "forbid": self.forbid}
        for kind, sets in kinds.items():
            for name, source in sets.items():
                kept_out[f"{kind}/{name}"] = self._all_rows(source, f"{kind}/{name}")
        return MixPlan(
            self.subsets,
            kept_out,
            self.cache_dir,
            self.seed,
            self.content_cache,
            self.on_bad_row,
        )

    def _all_rows(self, source: RowSource | str, name: str) -> Sequence[Utterance]:
        """The rows, without checks of theirs that only training on them would need."""
        if isinstance(source, str):
            source = IndexedManifest(
                source, allow_empty_text=True, on_bad_row=self.on_bad_row, lang=self.lang
            )
        # What is not evaluated needs not be kept out, and cannot be.
        return self.usable(source, name)
