"""How good a speaker prompt is as a recording, and the rules that keep bad ones out of a training mix."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from lightning_audiorl.data.audio.reading import AudioError, read_audio
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.mix.selection.base import Candidate, SubsetBuilder, Verdict
from lightning_audiorl.data.mix.selection.clips import ClipKey, clip_key
from lightning_audiorl.types import Utterance

#: What a level reads where all samples are 0.
SILENT_DB = -120.0
#: Audio below this level counts as silent.
SILENCE_BELOW_DB = -60.0

_FRAME_S = 0.025
_HOP_S = 0.01
#: Frames weaker than the loudest one by more than this are taken for pauses.
_ACTIVE_BELOW_LOUDEST_DB = 15.0
#: The quietest tenth of the frames is taken for the noise.
_NOISE_QUANTILE = 0.1
_MAX_SNR_DB = 100.0
_CLIPPED_AT = 0.99


@dataclass(frozen=True)
class PromptMeasures:
    """Quality of a prompt as a recording, measured from its waveform.

    Args:
        duration_s: length in seconds.
        clipped: share of samples at 0.99 of full scale or beyond.
        level_db: mean power of the active frames (25 ms, at most 15 dB below the loudest one), in dB of full scale;
            ``SILENT_DB`` where all samples are 0.
        snr_db: that power over the power below which the quietest tenth of all frames lies, in dB, from 0 to 100. An
            estimate: a recording without pauses shows its weakest sounds instead of its noise. Frames of digital
            silence, as between joined clips, are left out.
    """

    duration_s: float
    clipped: float
    level_db: float
    snr_db: float


def measure_prompt(waveform: Tensor, sample_rate_hz: int) -> PromptMeasures:
    """The measures of a waveform [num_samples]; of one without samples those of silence.

    Example:
        >>> import torch
        >>> speech = torch.cat([0.1 * torch.ones(8000), 0.001 * torch.ones(8000)])
        >>> measures = measure_prompt(speech, sample_rate_hz=16000)
        >>> measures.duration_s, round(measures.level_db), round(measures.snr_db)
        (1.0, -20, 40)
    """
    duration_s = waveform.numel() / sample_rate_hz
    if not bool(waveform.any()):
        return PromptMeasures(duration_s, clipped=0.0, level_db=SILENT_DB, snr_db=0.0)

    clipped = float((waveform.abs() >= _CLIPPED_AT).float().mean())
    powers = _frame_powers(waveform, sample_rate_hz)
    threshold = powers.max() * 10 ** (-_ACTIVE_BELOW_LOUDEST_DB / 10)
    active = powers[powers >= threshold].mean()
    noise = powers.quantile(_NOISE_QUANTILE)

    level_db = float(10 * active.log10())
    snr_db = float(10 * (active / noise).log10())
    return PromptMeasures(
        duration_s=duration_s,
        clipped=clipped,
        level_db=max(SILENT_DB, level_db),
        snr_db=min(max(snr_db, 0.0), _MAX_SNR_DB),
    )


def _frame_powers(waveform: Tensor, sample_rate_hz: int) -> Tensor:
    """[frames] float64, the mean power of every frame that is not digital silence; one frame at least."""
    # A clip shorter than a frame is one frame of its own length.
    size = max(1, min(waveform.numel(), round(_FRAME_S * sample_rate_hz)))
    hop = max(1, round(_HOP_S * sample_rate_hz))
    frames = waveform.double().unfold(0, size, hop)
    powers = frames.square().mean(-1)
    powers = powers[powers > 0]

    # The only samples that are not 0 may lie behind the last whole frame.
    if powers.numel() == 0:
        powers = waveform.double().square().mean().reshape(1)
    return powers


@lru_cache(maxsize=4096)
def _measured(key: ClipKey, sample_rate_hz: int) -> PromptMeasures:
    return measure_prompt(read_audio(key.row, sample_rate_hz), sample_rate_hz)


def prompt_measures(row: Utterance, sample_rate_hz: int = 16000) -> PromptMeasures | None:
    """The measures of a row's speaker prompt; None where it has none.

    Raises:
        AudioError: the prompt's audio is missing or unreadable; names the row.

    Example:
        >>> prompt_measures(Utterance(id="t1", segments=(), text="hello", duration_s=1.0)) is None
        True
    """
    if not row.segments:
        return None
    return _measured(clip_key(row), sample_rate_hz)


def check_prompt(
    row: Utterance, waveform: Tensor, sample_rate_hz: int, limits_s: tuple[float, float]
) -> None:
    """Refuse a speaker prompt that a model cannot take a voice from.

    Args:
        row: the row whose prompt it is.
        waveform: [num_samples] of the prompt.
        sample_rate_hz: of the waveform.
        limits_s: (shortest, longest) prompt, in seconds.

    Raises:
        AudioError: too short, too long or silent; names row and files.
    """
    measures = measure_prompt(waveform, sample_rate_hz)
    where = f"row {row.id!r}: speaker prompt {_files(row)}"

    shortest, longest = limits_s
    if not shortest <= measures.duration_s <= longest:
        raise AudioError(
            f"{where} is {measures.duration_s:.2f} s long, want {shortest:g} to {longest:g} s; give another prompt, or "
            "set data.init_args.prompt_s where the model can do with it"
        )

    if measures.level_db < SILENCE_BELOW_DB:
        raise AudioError(
            f"{where} is silent ({measures.level_db:.0f} dB of full scale, want {SILENCE_BELOW_DB:g} or more); give "
            "another prompt, or none"
        )


def _files(row: Utterance) -> str:
    """The files that a row's audio is joined from, each once; its address where it is synthetic throughout."""
    paths = [segment.audio_filepath for segment in row.segments]
    files = dict.fromkeys(path for path in paths if not path.startswith(PREFIX))
    return ", ".join(files) or paths[0]


class PromptRule(SubsetBuilder):
    """A rule over the speaker prompt's measures; rows without a prompt are left out.

    Args:
        num_rows: most rows kept; none keeps all.
        sample_rate_hz: the rate that prompts are measured at.
    """

    def __init__(self, num_rows: int | None = None, sample_rate_hz: int = 16000) -> None:
        super().__init__(num_rows)
        self.sample_rate_hz = sample_rate_hz

    def judge(self, candidate: Candidate) -> Verdict:
        measures = prompt_measures(candidate.row, self.sample_rate_hz)
        if measures is None:
            return Verdict(False, "no speaker prompt")
        return self.judge_prompt(measures)

    @abstractmethod
    def judge_prompt(self, prompt: PromptMeasures) -> Verdict:
        """Whether a prompt of these measures may be used."""


class PromptDuration(PromptRule):
    """Prompts that are neither too short nor too long.

    Args:
        min_s: shortest prompt, in seconds.
        max_s: longest prompt.
        num_rows: most rows kept; none keeps all.
        sample_rate_hz: the rate that prompts are measured at.

    Example:
        >>> short = PromptMeasures(duration_s=0.5, clipped=0.0, level_db=-25.0, snr_db=30.0)
        >>> PromptDuration(min_s=1.0, max_s=15.0).judge_prompt(short).reason
        'prompt shorter than 1 s'
    """

    def __init__(
        self,
        min_s: float = 1.0,
        max_s: float = 15.0,
        num_rows: int | None = None,
        sample_rate_hz: int = 16000,
    ) -> None:
        super().__init__(num_rows, sample_rate_hz)
        if not 0 <= min_s <= max_s:
            raise ValueError(
                f"PromptDuration: want 0 <= min_s <= max_s, in seconds; got {min_s}, {max_s}"
            )
        self.min_s = min_s
        self.max_s = max_s

    def judge_prompt(self, prompt: PromptMeasures) -> Verdict:
        if prompt.duration_s < self.min_s:
            return Verdict(False, f"prompt shorter than {self.min_s:g} s")
        if prompt.duration_s > self.max_s:
            return Verdict(False, f"prompt longer than {self.max_s:g} s")
        return Verdict(True, f"prompt of {prompt.duration_s:.1f} s")


class PromptClipping(PromptRule):
    """Prompts of which few samples reach full scale.

    Args:
        max_share: largest share of samples at 0.99 of full scale or beyond.
        num_rows: most rows kept; none keeps all.
        sample_rate_hz: the rate that prompts are measured at.

    Example:
        >>> clipped = PromptMeasures(duration_s=3.0, clipped=0.02, level_db=-25.0, snr_db=30.0)
        >>> PromptClipping(max_share=0.001).judge_prompt(clipped).reason
        "more than 0.001 of the prompt's samples clipped"
    """

    def __init__(
        self, max_share: float = 0.001, num_rows: int | None = None, sample_rate_hz: int = 16000
    ) -> None:
        super().__init__(num_rows, sample_rate_hz)
        if not 0 <= max_share < 1:
            raise ValueError(f"PromptClipping: want 0 <= max_share < 1, got {max_share}")
        self.max_share = max_share

    def judge_prompt(self, prompt: PromptMeasures) -> Verdict:
        if prompt.clipped > self.max_share:
            return Verdict(False, f"more than {self.max_share:g} of the prompt's samples clipped")
        return Verdict(True, f"{prompt.clipped:.4f} of the prompt clipped")


class PromptLoudness(PromptRule):
    """Prompts that are neither too quiet nor too loud.

    Args:
        min_db: lowest level of the active frames, in dB of full scale (see `PromptMeasures`).
        max_db: highest level.
        num_rows: most rows kept; none keeps all.
        sample_rate_hz: the rate that prompts are measured at.

    Example:
        >>> quiet = PromptMeasures(duration_s=3.0, clipped=0.0, level_db=-55.0, snr_db=30.0)
        >>> PromptLoudness(min_db=-50.0).judge_prompt(quiet).reason
        'prompt quieter than -50 dB'
    """

    def __init__(
        self,
        min_db: float = -50.0,
        max_db: float = -8.0,
        num_rows: int | None = None,
        sample_rate_hz: int = 16000,
    ) -> None:
        super().__init__(num_rows, sample_rate_hz)
        if not min_db <= max_db <= 0:
            raise ValueError(
                f"PromptLoudness: want min_db <= max_db <= 0, in dB; got {min_db}, {max_db}"
            )
        self.min_db = min_db
        self.max_db = max_db

    def judge_prompt(self, prompt: PromptMeasures) -> Verdict:
        if prompt.level_db < SILENCE_BELOW_DB:
            return Verdict(False, "prompt silent")
        if prompt.level_db < self.min_db:
            return Verdict(False, f"prompt quieter than {self.min_db:g} dB")
        if prompt.level_db > self.max_db:
            return Verdict(False, f"prompt louder than {self.max_db:g} dB")
        return Verdict(True, f"prompt at {prompt.level_db:.0f} dB")


class PromptNoise(PromptRule):
    """Prompts whose speech stands well above their noise.

    Args:
        min_snr_db: lowest signal-to-noise ratio in dB, as estimated (see `PromptMeasures`). Clean speech that hardly
            pauses reads low: of 60 espeak prompts one in fifty reads under 12 dB, of FSDD's speaker nicolas under 13.
        num_rows: most rows kept; none keeps all.
        sample_rate_hz: the rate that prompts are measured at.

    Example:
        >>> noisy = PromptMeasures(duration_s=3.0, clipped=0.0, level_db=-25.0, snr_db=4.0)
        >>> PromptNoise(min_snr_db=10.0).judge_prompt(noisy).reason
        'signal-to-noise ratio of the prompt below 10 dB'
    """

    def __init__(
        self, min_snr_db: float = 10.0, num_rows: int | None = None, sample_rate_hz: int = 16000
    ) -> None:
        super().__init__(num_rows, sample_rate_hz)
        self.min_snr_db = min_snr_db

    def judge_prompt(self, prompt: PromptMeasures) -> Verdict:
        if prompt.snr_db < self.min_snr_db:
            return Verdict(
                False, f"signal-to-noise ratio of the prompt below {self.min_snr_db:g} dB"
            )
        return Verdict(True, f"prompt {prompt.snr_db:.0f} dB above its noise")
