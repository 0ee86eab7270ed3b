"""Speech with sound that is not speech before and after it, for which a recogniser must write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_audiorl.data.audio.effects import refuse_effects, source_ids
from lightning_audiorl.data.audio.nonspeech import KINDS
from lightning_audiorl.data.draws import between, check_span, pick, seconds, settings_name
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import key_to_seed, keyed_uniform
from lightning_audiorl.types import Segment, Utterance


class NoisePadded(RowSource):
    """Rows with sound that is not speech before and after them; the text stays. One row for each of the source.

    Both sides of a row have the same kind of sound at the same level.

    Args:
        source: the rows.
        before_s: range of the length put before, in steps of 0.01 s.
        after_s: range of the length put after.
        kinds: some of silence, white, pink, brown, hum, music, clicks (see `NonSpeech`).
        level_db: range of RMS levels in dB of full scale.
        seed: another seed gives other lengths and sounds.

    Raises:
        ValueError: for bad settings; when a row with effects is asked for.

    Example:
        >>> from lightning_audiorl.data import NonSpeech
        >>> padded = NoisePadded(NonSpeech(kinds=["hum"]), kinds=["pink"])
        >>> [segment.audio_filepath.partition("?")[0] for segment in padded[0].segments]
        ['synthetic:pink', 'synthetic:hum', 'synthetic:pink']
    """

    def __init__(
        self,
        source: RowSource,
        before_s: tuple[float, float] = (0.5, 3.0),
        after_s: tuple[float, float] = (0.5, 3.0),
        kinds: Sequence[str] = KINDS,
        level_db: tuple[float, float] = (-50.0, -25.0),
        seed: int = 0,
    ) -> None:
        self.source = source
        self.kinds = tuple(kinds)
        self.seed = seed
        self.before_s = check_span("NoisePadded.before_s", before_s, 0.0)
        self.after_s = check_span("NoisePadded.after_s", after_s, 0.0)
        self.level_db = check_span("NoisePadded.level_db", level_db, -120.0)

        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(
                f"NoisePadded.kinds: want some of {', '.join(KINDS)}, got {list(kinds)}"
            )
        if self.level_db[1] > 0 or before_s[1] + after_s[1] == 0:
            raise ValueError(
                "NoisePadded: want level_db of 0 or less and before_s or after_s above 0; got "
                f"level_db={level_db}, before_s={before_s}, after_s={after_s}"
            )

        name = settings_name(seed, self.before_s, self.after_s, self.kinds, self.level_db)
        self._name = f"padded-{name}"

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.source[check_index(index, len(self), self)]
        refuse_effects(row, self)

        draws = keyed_uniform(4, self._name, row.id)
        u_before, u_after, u_kind, u_level = draws.tolist()
        before_s = seconds(self.before_s, u_before)
        after_s = seconds(self.after_s, u_after)
        kind = pick(self.kinds, u_kind)
        level_db = between(self.level_db, u_level)

        def sound(side: str, duration_s: float) -> tuple[Segment, ...]:
            if duration_s <= 0:
                return ()
            # Two seeds, so that the sound after the speech is no copy of that before.
            seed = key_to_seed(self._name, row.id, side) >> 31
            uri = f"{PREFIX}{kind}?seed={seed}&level_db={level_db:.1f}"
            return (Segment(uri, duration_s),)

        before = sound("before", before_s)
        after = sound("after", after_s)
        return replace(
            row,
            id=f"{row.id}+{self._name}",
            segments=(*before, *row.segments, *after),
            duration_s=round(before_s + row.duration_s + after_s, 9),
            extra={**row.extra, "sources": source_ids(row)},
        )
