"""Words that a prompt names: a row's own keywords, and distractors drawn around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.text.keywords import count_occurrences
from lightning_audiorl.types import Utterance


@lru_cache(maxsize=64)
def read_words(path: str) -> tuple[str, ...]:
    """The lines of a text file that say something, each once.

    Raises:
        ValueError: no such file, one that is no UTF-8 text, or one without a word.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(
            f"Hotwords.distractors: {path}: {error.strerror}; name a text file with a word or phrase in each line"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Hotwords.distractors: {path}: byte {error.start} is no UTF-8; save it as UTF-8"
        ) from None

    words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise ValueError(f"Hotwords.distractors: {path}: holds no word; write one in each line")
    return words


@lru_cache(maxsize=2**16)
def _units(word: str, lang: str) -> tuple[str, ...]:
    return tuple(normaliser_for(lang).units(word))


@dataclass(frozen=True)
class Hotwords:
    """Which words the prompt of a row names. Every draw is keyed, so that a resumed run sees the same lists.

    A row has the right list, its keywords among so many distractors, or a wrong one of distractors alone, or none. No
    distractor is said in its row. A row whose manifest line has a field ``hotwords`` keeps that list.

    Args:
        sizes: numbers of distractors; each row draws one of them.
        distractors: text file with a word or phrase in each line; wanted where a size is above 0.
        share_wrong: of rows that get a wrong list.
        share_without: of rows that get none.

    Raises:
        ValueError: sizes that the file has too few words for, a file that is missing or empty, shares above 1 in all.

    Example:
        >>> row = Utterance("a", (), "call anna", 1.0, keywords=("anna",))
        >>> Hotwords().apply(row, 0, 12).hotwords
        ('anna',)
    """

    sizes: list[int] = field(default_factory=lambda: [0])
    distractors: str | None = None
    share_wrong: float = 0.0
    share_without: float = 0.0

    def __post_init__(self) -> None:
        check_number("Hotwords.share_wrong", self.share_wrong, at_least=0, at_most=1)
        check_number("Hotwords.share_without", self.share_without, at_least=0, at_most=1)
        if self.share_wrong + self.share_without > 1:
            raise ValueError(
                f"Hotwords: share_wrong {self.share_wrong} and share_without {self.share_without} are above 1 together"
            )

        if not self.sizes:
            raise ValueError("Hotwords.sizes: want at least one number of distractors, such as 0")
        for size in self.sizes:
            check_count("Hotwords.sizes", size)
        most = max(self.sizes)
        if most and self.distractors is None:
            raise ValueError(
                f"Hotwords.sizes: {most} distractors are wanted; name a text file of them in `distractors`"
            )
        if not most and self.share_wrong:
            raise ValueError(
                "Hotwords.share_wrong: a wrong list is of distractors alone; give a size above 0"
            )

        num_words = len(self._words)
        if num_words < most:
            raise ValueError(
                f"Hotwords.sizes: {most} distractors are wanted, and {self.distractors} has {num_words}; add words, "
                "or lower the sizes"
            )

    @property
    def _words(self) -> tuple[str, ...]:
        return () if self.distractors is None else read_words(self.distractors)

    def apply(self, row: Utterance, *key: int | str) -> Utterance:
        """The row with its list in the field ``hotwords``; the row itself where it has none, or one of its own.

        Args:
            row: with the id that keys its draws.
            key: what else keys them: a seed, and in training the step.
        """
        if "hotwords" in row.extra:
            return row
        words = self._list(row, key)
        if not words:
            return row
        return replace(row, extra={**row.extra, "hotwords": words})

    def _list(self, row: Utterance, key: Sequence[int | str]) -> list[str]:
        which, share = keyed_uniform(2, "hotwords", *key, row.id).tolist()
        if which < self.share_without:
            return []
        is_wrong = which < self.share_without + self.share_wrong

        # A wrong list without a word would be none.
        sizes = [size for size in self.sizes if size > 0] if is_wrong else self.sizes
        size = sizes[min(int(share * len(sizes)), len(sizes) - 1)]

        own = () if is_wrong else tuple(dict.fromkeys(row.keywords))
        generator = keyed_generator("hotword list", *key, row.id)
        words = [*own, *self._not_said(row, size, generator)]

        # Otherwise the first words would be the right ones.
        order = torch.randperm(len(words), generator=generator).tolist()
        return [words[place] for place in order]

    def _not_said(self, row: Utterance, size: int, generator: torch.Generator) -> list[str]:
        """So many distractors that the row's text does not hold; fewer where the file has no more of them."""
        if not size:
            return []
        said = list(_units(row.text, row.lang))
        keywords = {_units(word, row.lang) for word in row.keywords}

        found: list[str] = []
        words = self._words
        for place in torch.randperm(len(words), generator=generator).tolist():
            units = _units(words[place], row.lang)
            if units and units not in keywords and not count_occurrences(said, list(units)):
                found.append(words[place])
            if len(found) == size:
                break
        return found


class WithHotwords(RowSource):
    """The rows of another source with lists of words for their prompts, the same every time: an evaluation set.

    Ids stay, so that sets of the same rows with other lists can be laid side by side. A training mix takes the data
    module's ``hotwords`` instead, which draws anew at each step.

    Args:
        source: the rows.
        hotwords: which words; by default each row's own keywords.
        seed: another seed draws other lists.

    Example:
        >>> from lightning_audiorl.data import EspeakCorpus
        >>> row = WithHotwords(EspeakCorpus(part="dev", num_rows=3))[2]
        >>> sorted(row.hotwords) == sorted(row.keywords)
        True
    """

    def __init__(self, source: RowSource, hotwords: Hotwords | None = None, seed: int = 0) -> None:
        self.source = source
        self.hotwords = Hotwords() if hotwords is None else hotwords
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.source[check_index(index, len(self), self)]
        return self.hotwords.apply(row, self.seed)
