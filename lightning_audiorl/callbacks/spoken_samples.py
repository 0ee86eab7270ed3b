"""Speech for the ear and the eye: what judges heard in it, as tables, sound and mel spectrograms."""

from __future__ import annotations

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

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.types import Hypothesis, Scores, Speech

_NUM_MELS = 64
_TICKS_HZ = (0, 250, 500, 1000, 2000, 4000, 8000)


def has_speech(groups: Sequence[Sequence[Hypothesis]]) -> bool:
    """Whether these are samples of a policy that speaks."""
    return bool(groups and groups[0] and groups[0][0].speech is not None)


def spoken(hypothesis: Hypothesis) -> Speech:
    """The sample's speech, which is there wherever `has_speech` is true."""
    assert hypothesis.speech is not None
    return hypothesis.speech


def judge_names(hypotheses: Iterable[Hypothesis]) -> list[str]:
    """The ASR judges that wrote down what they heard in any of the samples, in the order in which they listened."""
    names: dict[str, None] = {}
    for hypothesis in hypotheses:
        names |= {name: None for name, heard in hypothesis.transcripts.items() if heard is not None}
    return list(names)


def transcript(hypothesis: Hypothesis, judge: str) -> str:
    """What a judge heard; says so where it heard nothing, or failed."""
    heard = hypothesis.transcripts.get(judge)
    return heard or ("(nothing)" if heard == "" else "(failed)")


def _length(hypothesis: Hypothesis) -> list[str]:
    """Seconds, and tokens with a mark where the cap cut them."""
    cut = "" if hypothesis.finished else " (cut)"
    return [f"{spoken(hypothesis).duration_s:.2f}", f"{hypothesis.num_tokens}{cut}"]


def heard_table(groups: Iterable[Sequence[Hypothesis]]) -> str:
    """Markdown: the first sample of each group, its text beside what each judge heard."""
    samples = [said for said, *_ in groups]
    judges = judge_names(samples)
    rows = [
        [said.row.id, said.row.text, *(transcript(said, judge) for judge in judges), *_length(said)] for said in samples
    ]
    return markdown_table(["id", "text", *(f"heard by {judge}" for judge in judges), "seconds", "tokens"], rows)


def spoken_group_table(groups: Sequence[Sequence[Hypothesis]], scores: Scores, places: Iterable[Sequence[int]]) -> str:
    """Markdown: the best and the worst sample of each place (prompt, best, worst): judges, reward and its parts."""
    places = list(places)
    judges = judge_names(groups[prompt][sample] for prompt, *samples in places for sample in samples)
    rows = []
    for prompt, *samples in places:
        for label, sample in zip(("best", "worst"), samples, strict=True):
            said = groups[prompt][sample]
            figures = [f"{values[prompt, sample]:.3f}" for values in (scores.total, *scores.parts.values())]
            heard = [transcript(said, judge) for judge in judges]
            rows.append([said.row.id, said.row.text, label, *heard, *figures, *_length(said)])
    heard_by = [f"heard by {judge}" for judge in judges]
    return markdown_table(["id", "text", "", *heard_by, "reward", *scores.parts, "seconds", "tokens"], rows)


# --- sound


def audible(waveform: Tensor, sample_rate_hz: int, max_s: float = math.inf) -> Tensor:
    """[num_samples] float32 within full scale, on the CPU, cut after ``max_s`` seconds; NaN is silence."""
    num_samples = min(waveform.shape[0], round(max_s * sample_rate_hz)) if math.isfinite(max_s) else waveform.shape[0]
    return waveform[:num_samples].detach().float().cpu().nan_to_num(0.0).clamp(-1, 1)


def write_wav(path: Path, speech: Speech) -> None:
    """Write 16 bits per sample; folders are made. An empty waveform makes an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audible(speech.waveform, speech.sample_rate_hz).numpy(), speech.sample_rate_hz, "PCM_16")


# --- mel spectrograms


def mel_db(waveform: Tensor, sample_rate_hz: int) -> Tensor:
    """[64, frames] mel power in dB, at most 80 dB below the loudest; a frame every 10 ms."""
    n_fft = 2 ** math.ceil(math.log2(0.06 * sample_rate_hz))
    mel = MelSpectrogram(
        sample_rate_hz,
        n_fft,
        win_length=round(0.025 * sample_rate_hz),
        hop_length=round(0.01 * sample_rate_hz),
        n_mels=_NUM_MELS,
        pad_mode="constant",
    )
    decibels: Tensor = AmplitudeToDB("power", top_db=80)(mel(audible(waveform, sample_rate_hz)))
    return decibels


def mel_figure(speech: Speech, title: str = "") -> Figure:
    """A mel spectrogram with its axes in seconds and hertz. The waveform must not be empty."""
    decibels, half_hz = mel_db(speech.waveform, speech.sample_rate_hz), speech.sample_rate_hz / 2
    figure = Figure(figsize=(min(12.0, 2.5 + 2.0 * speech.duration_s), 2.4))
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    extent = (0.0, speech.duration_s, 0.0, float(_NUM_MELS))
    axis.imshow(decibels.numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma")
    ticks = [hz for hz in _TICKS_HZ if hz <= half_hz]
    axis.set_yticks([_NUM_MELS * _mel(hz) / _mel(half_hz) for hz in ticks], [f"{hz}" for hz in ticks], fontsize=7)
    axis.set_ylabel("Hz")
    axis.set_xlabel("seconds")
    axis.set_title(title, fontsize=8)
    figure.tight_layout()
    return figure


def _mel(hz: float) -> float:
    """O'Shaughnessy's mel scale, which `MelSpectrogram` uses unless told otherwise."""
    return 2595 * math.log10(1 + hz / 700)


def picture(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[height, width, 3] of a figure with an Agg canvas."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_speech(writer: Any, tag: str, speech: Speech, step: int, max_audio_s: float) -> None:
    """A sample's sound and mel spectrogram under ``tag`` and ``<tag>/mel`` in TensorBoard; nothing where it is empty.

    Args:
        writer: a SummaryWriter.
        max_audio_s: longer speech is cut, in seconds; 0 writes nothing.
    """
    rate_hz = speech.sample_rate_hz
    wave = audible(speech.waveform, rate_hz, max_audio_s)
    if not wave.numel():
        return
    writer.add_audio(tag, wave[None], step, sample_rate=rate_hz)
    cut = Speech(wave, rate_hz, speech.codes)
    writer.add_image(f"{tag}/mel", picture(mel_figure(cut)), step, dataformats="HWC")
