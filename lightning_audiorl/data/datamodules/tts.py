"""Batches of texts to be spoken, with speaker prompts and recordings, for SFT, RL and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.data.audio.bad_rows import OnBadRow, field_names
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora.texts import check_charset
from lightning_audiorl.data.datamodules.asr import AsrDataModule, Subset, collate
from lightning_audiorl.data.datamodules.asr_rl import AsrRLDataModule
from lightning_audiorl.data.draws import check_span
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.manifest.targets import target_segments
from lightning_audiorl.data.manifest.tts import SpeechManifest
from lightning_audiorl.data.mix.selection.by_prompt_quality import check_prompt
from lightning_audiorl.data.mix.spec import RLSubset
from lightning_audiorl.types import PromptBatch, Utterance


class TtsDataModule(AsrDataModule):
    """`AsrDataModule` for speech synthesis: a row's text is to be spoken, its audio is the speaker prompt.

    In a batch ``waveform`` holds the prompts, with 0 samples where a row has none, and ``target_waveform`` the
    recordings of the texts, with 0 samples where a row has none; it is None where no row of the batch has one. Order,
    shares, refill and resume are those of `AsrDataModule`; ``max_duration_s`` limits the expected length of the speech
    to be made.

    Args:
        prompt_s: (shortest, longest) speaker prompt, in seconds; one outside is an error. Rows without prompt may be.
        charset: all characters that a text may have; None allows any.
        settings: those of `AsrDataModule`, but for ``augment``. A manifest path is read as a `SpeechManifest`.

    Raises:
        ValueError: augmentation is asked for.
    """

    def __init__(
        self,
        prompt_s: tuple[float, float] = (0.3, 30.0),
        charset: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)

        if self.augment is not None:
            raise ValueError(
                "TtsDataModule.augment: prompts and recordings are read as they are; leave it out, and wrap prompts in "
                "Degraded where they are to be worse"
            )

        self.prompt_s = check_span("TtsDataModule.prompt_s", prompt_s, 0.0)
        self.charset = charset

        # Manifests of speech synthesis have fields of their own.
        if isinstance(self.train, str | RowSource):
            self.train = [Subset(self.train)]
        if self.train is not None:
            self.train = [
                replace(subset, source=speech_source(subset.source, self.on_bad_row, self.lang))
                for subset in self.train
            ]
        self.val = speech_sources(self.val, self.on_bad_row, self.lang)
        self.test = speech_sources(self.test, self.on_bad_row, self.lang)
        self.predict = speech_sources(self.predict, self.on_bad_row, self.lang)

    def _read(self, row: Utterance) -> tuple[Tensor, Tensor]:
        """Prompt and recording of a row, [num_samples] each."""
        if self.charset is not None:
            check_charset(row.text, self.charset, f"row {row.id!r}")

        with field_names(duration="prompt_duration"):
            prompt = self._prompt(row)
        with field_names(audio_filepath="target", offset="target", duration="target"):
            target = self._target(row)
        return prompt, target

    def _batch(self, rows: Sequence[Utterance], read: Sequence[Any]) -> PromptBatch:
        prompts = [prompt for prompt, _ in read]
        batch = collate(rows, prompts, self.sample_rate_hz)

        targets = [target for _, target in read]
        if not any(target.numel() for target in targets):
            return batch

        recordings = collate(rows, targets, self.sample_rate_hz)
        return replace(
            batch, target_waveform=recordings.waveform, target_num_samples=recordings.num_samples
        )

    def _prompt(self, row: Utterance) -> Tensor:
        """[num_samples] of the speaker prompt; none where the row has no prompt."""
        if not row.segments:
            return torch.zeros(0)
        wave = read_audio(row, self.sample_rate_hz, self.cache)
        check_prompt(row, wave, self.sample_rate_hz, self.prompt_s)
        return wave

    def _target(self, row: Utterance) -> Tensor:
        """[num_samples] of the recording of the text; none where the row has no recording."""
        segments = target_segments(row)
        if not segments:
            return torch.zeros(0)

        # Effects are of the prompt.
        recording = replace(row, segments=segments, effects=())
        return read_audio(recording, self.sample_rate_hz, self.cache)


class TtsRLDataModule(AsrRLDataModule, TtsDataModule):
    """`AsrRLDataModule` for speech synthesis: a training mix of texts and speaker prompts, chosen by filters.

    Mixes are built, cached, described and kept clear of evaluation audio as there; prompts and recordings both count
    as a row's audio. Rules: those over prompts in `by_prompt_quality`, over texts in `by_tts_text`, over the policy's
    own samples in `by_tts_samples`; `Filters` applies several, and each removed row is counted under the first that it
    fails.

    Args:
        subsets: the parts of the mix by name.
        forbid: further sets whose audio no training row may have, rows or manifest paths by name.
        cache_dir: folder of built mixes.
        content_cache: sqlite file of content hashes.
        settings: those of `TtsDataModule`, but for ``train``.

    Raises:
        ValueError: see `AsrRLDataModule` and `TtsDataModule`.
    """

    def __init__(
        self,
        subsets: dict[str, RLSubset],
        forbid: dict[str, RowSource | str] | None = None,
        cache_dir: str = "runs/rl_data",
        content_cache: str | None = None,
        **settings: Any,
    ) -> None:
        on_bad_row: OnBadRow = settings.get("on_bad_row", "error")
        lang: str | None = settings.get("lang")
        of_speech: dict[str, RLSubset] = {}
        for name, subset in subsets.items():
            of_speech[name] = replace(subset, source=speech_source(subset.source, on_bad_row, lang))
        forbidden = speech_sources(forbid or {}, on_bad_row, lang)
        super().__init__(of_speech, forbidden, cache_dir, content_cache, **settings)


def speech_source(
    source: RowSource | str, on_bad_row: OnBadRow = "error", lang: str | None = None
) -> RowSource:
    """Rows as they are; the rows of a `SpeechManifest` where its path is given."""
    return SpeechManifest(source, on_bad_row, lang) if isinstance(source, str) else source


def speech_sources(
    sets: dict[str, RowSource | str], on_bad_row: OnBadRow = "error", lang: str | None = None
) -> dict[str, RowSource | str]:
    """`speech_source` of each named set."""
    return {name: speech_source(source, on_bad_row, lang) for name, source in sets.items()}
