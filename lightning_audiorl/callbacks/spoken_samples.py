"""Samples of speech for the eye and the ear: transcripts of the judges as tables, sound and mel spectrograms."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from lightning_audiorl.callbacks.clips import ClipWriter, caption_of
from lightning_audiorl.callbacks.figure_text import draw_title
from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Hypothesis, Scores, Speech

_log = logging.getLogger(__name__)

_NUM_MELS = 64
#: Characters of a title in an inch; fewer of wide ones.
_COLUMNS_PER_INCH = (13, 11, 9, 7)
_TICKS_HZ = (0, 250, 500, 1000, 2000, 4000, 8000)


def has_speech(groups: Sequence[Sequence[Hypothesis]]) -> bool:
    """Whether these are samples of a policy that speaks.

    Args:
        groups: of one step or one set.
    """
    if not groups or not groups[0]:
        return False
    first = groups[0][0]
    return first.speech is not None


def spoken(hypothesis: Hypothesis) -> Speech:
    """The sample's speech, which is there wherever `has_speech` is true."""
    assert hypothesis.speech is not None
    return hypothesis.speech


def judge_names(hypotheses: Iterable[Hypothesis]) -> list[str]:
    """The ASR judges that have transcribed any of the samples, in the order in which they were asked.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="one two", duration_s=1.0)
        >>> judge_names([Hypothesis(row, "", transcripts={"failed": None, "asr": "one"})])
        ['asr']
    """
    names: dict[str, None] = {}
    for hypothesis in hypotheses:
        for name, text in hypothesis.transcripts.items():
            if text is not None:
                names[name] = None
    return list(names)


def transcript(hypothesis: Hypothesis, judge: str) -> str:
    """A judge's transcript; says so where it is empty, or the judge failed.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> sample = Hypothesis(Utterance("a", (), text="one", duration_s=1.0), "", transcripts={"x": "", "y": None})
        >>> transcript(sample, "x"), transcript(sample, "y")
        ('(nothing)', '(failed)')
    """
    text = hypothesis.transcripts.get(judge)
    if text is None:
        return "(failed)"
    return text or "(nothing)"


def length_text(hypothesis: Hypothesis) -> str:
    """Tokens, with a mark where the cap cut them.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="one", duration_s=1.0)
        >>> length_text(Hypothesis(row, "one one one", num_tokens=6, finished=False))
        '6 (cut)'
    """
    return f"{hypothesis.num_tokens}" + ("" if hypothesis.finished else " (cut)")


def reward_cells(scores: Scores, prompt: int, sample: int) -> list[str]:
    """The reward of a sample, and each component of it."""
    values = (scores.total, *scores.parts.values())
    return [f"{value[prompt, sample]:.3f}" for value in values]


def labelled(place: Sequence[int]) -> list[tuple[str, int, int]]:
    """The two samples of a place (prompt, best, worst): (label, prompt, sample).

    Example:
        >>> labelled((3, 0, 7))
        [('best', 3, 0), ('worst', 3, 7)]
    """
    prompt, best, worst = place
    return [("best", prompt, best), ("worst", prompt, worst)]


def transcript_table(groups: Iterable[Sequence[Hypothesis]]) -> str:
    """Markdown: the first sample of each group, its text beside the transcript of each judge."""
    samples = [first for first, *_ in groups]
    judges = judge_names(samples)

    rows = []
    for sample in samples:
        transcripts = [transcript(sample, judge) for judge in judges]
        length = [_seconds(sample), length_text(sample)]
        rows.append([sample.row.id, sample.row.text, *transcripts, *length])
    return markdown_table(["id", "text", *_headings(judges), "seconds", "tokens"], rows)


def spoken_group_table(
    groups: Sequence[Sequence[Hypothesis]],
    scores: Scores,
    places: Iterable[Sequence[int]],
) -> str:
    """Markdown: the two samples of each place (prompt, best, worst): transcripts, reward and its components."""
    shown = []
    for place in places:
        shown += labelled(place)
    judges = judge_names(groups[prompt][sample] for _, prompt, sample in shown)

    rows = []
    for label, prompt, number in shown:
        sample = groups[prompt][number]
        transcripts = [transcript(sample, judge) for judge in judges]
        rewards = reward_cells(scores, prompt, number)
        length = [_seconds(sample), length_text(sample)]
        texts = [sample.row.id, sample.row.text, label]
        rows.append([*texts, *transcripts, *rewards, *length])
    header = ["id", "text", "", *_headings(judges), "reward", *scores.parts, "seconds", "tokens"]
    return markdown_table(header, rows)


def _headings(judges: Iterable[str]) -> list[str]:
    return [f"heard by {judge}" for judge in judges]


def _seconds(hypothesis: Hypothesis) -> str:
    return f"{spoken(hypothesis).duration_s:.2f}"


# --- sound


def audible(waveform: Tensor, sample_rate_hz: int, max_s: float = math.inf) -> Tensor:
    """[num_samples] float32 within full scale, on the CPU, cut after ``max_s`` seconds; NaN is silence.

    Example:
        >>> import torch
        >>> audible(torch.tensor([0.5, float("nan"), -3.0, 0.1]), sample_rate_hz=10, max_s=0.3)
        tensor([ 0.5000,  0.0000, -1.0000])
    """
    num_samples = waveform.shape[0]
    if math.isfinite(max_s):
        num_samples = min(num_samples, round(max_s * sample_rate_hz))
    wave = waveform[:num_samples].detach().float().cpu()
    return wave.nan_to_num(0.0).clamp(-1, 1)


def write_wav(path: Path, speech: Speech) -> bool:
    """Write 16 bits per sample; folders are made. An empty waveform makes an empty file.

    Samples beyond full scale are clipped, with a warning that says how many.

    Returns:
        False, with a warning and without a file, where samples are NaN or infinite: silence in their place would be
        another sample than the one that was judged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not bool(speech.waveform.isfinite().all()):
        _log.warning("%s: not written, for the sample holds NaN or infinite values", path)
        path.unlink(missing_ok=True)
        return False

    clipped = int((speech.waveform.abs() > 1).sum())
    if clipped:
        share = 100 * clipped / len(speech.waveform)
        _log.warning(
            "%s: %d samples (%.2g %%) are beyond full scale and clipped", path, clipped, share
        )

    wave = audible(speech.waveform, speech.sample_rate_hz)
    soundfile.write(path, wave.numpy(), speech.sample_rate_hz, "PCM_16")
    return True


# --- mel spectrograms


def mel_db(waveform: Tensor, sample_rate_hz: int) -> Tensor:
    """[64, frames] mel power in dB, at most 80 dB below the loudest; a frame every 10 ms.

    Args:
        waveform: [num_samples], not empty.
        sample_rate_hz: of it.

    Example:
        >>> import torch
        >>> mel_db(torch.rand(8000), 8000).shape
        torch.Size([64, 101])
    """
    # A window of 25 ms in at least twice its length of FFT, so that narrow mel bands at the bottom have a bin each.
    n_fft = 2 ** math.ceil(math.log2(0.06 * sample_rate_hz))
    mel = MelSpectrogram(
        sample_rate_hz,
        n_fft,
        win_length=round(0.025 * sample_rate_hz),
        hop_length=round(0.01 * sample_rate_hz),
        n_mels=_NUM_MELS,
        pad_mode="constant",
    )
    power = mel(audible(waveform, sample_rate_hz))
    decibels: Tensor = AmplitudeToDB("power", top_db=80)(power)
    return decibels


def mel_figure(speech: Speech, title: str = "", otherwise: str = "") -> Figure:
    """A mel spectrogram with its axes in seconds and hertz.

    Args:
        speech: whose waveform must not be empty.
        title: any text; drawn as it stands, on two lines at most.
        otherwise: drawn in its place where no installed font has its characters.
    """
    decibels = mel_db(speech.waveform, speech.sample_rate_hz)
    width = min(12.0, 2.5 + 2.0 * speech.duration_s)
    figure = Figure(figsize=(width, 2.4))
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()

    extent = (0.0, speech.duration_s, 0.0, float(_NUM_MELS))
    axis.imshow(
        decibels.numpy(),
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="magma",
    )

    # Rows are equal steps of mel; a tick stands where its frequency lies on that scale.
    half_hz = speech.sample_rate_hz / 2
    ticks_hz = [hz for hz in _TICKS_HZ if hz <= half_hz]
    places = [_NUM_MELS * _mel(hz) / _mel(half_hz) for hz in ticks_hz]
    axis.set_yticks(places, [f"{hz}" for hz in ticks_hz], fontsize=7)

    axis.set_ylabel("Hz")
    axis.set_xlabel("seconds")
    heading = axis.set_title("", fontsize=8)
    for per_inch in _COLUMNS_PER_INCH:
        draw_title(heading, title, otherwise, num_columns=round(per_inch * width))
        figure.tight_layout()
        box = heading.get_window_extent()
        if box.x0 >= 0 and box.x1 <= figure.bbox.x1:
            break
    return figure


def _mel(hz: float) -> float:
    """O'Shaughnessy's mel scale, which `MelSpectrogram` uses unless told otherwise."""
    return 2595 * math.log10(1 + hz / 700)


def picture(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[height, width, 3] of a figure with an Agg canvas."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_speech(
    clips: ClipWriter, writer: Any, tag: str, speech: Speech, step: int, caption: str
) -> None:
    """A sample's sound and mel spectrogram under ``tag`` and ``<tag>/mel`` in TensorBoard.

    Nothing where it is empty, or holds NaN or infinite values, and where the run has its fill of sound.

    Args:
        clips: writes the sound.
        writer: a SummaryWriter.
        tag: in TensorBoard.
        speech: of the sample.
        step: RL step.
        caption: what is heard.
    """
    rate_hz = speech.sample_rate_hz
    wave = audible(speech.waveform, rate_hz, clips.max_audio_s)
    if not wave.numel() or not bool(speech.waveform.isfinite().all()):
        return
    if clips.write(writer, tag, wave, rate_hz, step, caption):
        cut = Speech(wave, rate_hz, speech.codes)
        mel = picture(mel_figure(cut))
        writer.add_image(f"{tag}/mel", mel, step, dataformats="HWC")


def spoken_caption(hypothesis: Hypothesis, reward: float | None = None) -> str:
    """What a sample was to say, what each judge heard with its error rate, and the reward.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="one two", duration_s=1.0)
        >>> spoken_caption(Hypothesis(row, "", transcripts={"asr": "one"}), reward=0.5)
        'asked: one two | asr heard: one (CER 50 %) | reward 0.50'
    """
    row = hypothesis.row
    parts = [f"asked: {row.text}"]
    for judge in judge_names([hypothesis]):
        heard = hypothesis.transcripts[judge]
        rate = ""
        if heard is not None:
            errors, characters = character_errors(row, heard, normaliser_for(row.lang))
            rate = f" (CER {100 * errors / characters:.0f} %)" if characters else ""
        parts.append(f"{judge} heard: {transcript(hypothesis, judge)}{rate}")
    if reward is not None:
        parts.append(f"reward {reward:.2f}")
    return caption_of(parts)
