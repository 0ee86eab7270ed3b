"""Where speech is heard in a clip: silero-vad's network, with the weights that lie in its wheel (extra ``vad``)."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.functional import resample

from lightning_audiorl.checks import check_number

#: What the network listens at; other rates are resampled.
SAMPLE_RATE_HZ = 16000
#: It gives one probability for each window of 32 ms, which it sees together with the last 4 ms of the window before.
_WINDOW = 512
_CONTEXT = 64
_FRAME = 256
_HOP = 128
_WIDTH = 128
#: A span goes on until the probability is this far below what began it.
_HYSTERESIS = 0.15
#: Windows that go through the convolutions together: the memory of an hour would be gigabytes.
_AT_ONCE = 4096


@dataclass(frozen=True)
class SpeechActivity:
    """Where speech is heard in a clip.

    Args:
        duration_s: length of the clip in seconds.
        spans: (begin, end) of each stretch of speech in seconds, in order.

    Example:
        >>> heard = SpeechActivity(3.0, ((0.5, 1.25), (1.5, 2.0)))
        >>> heard.speech_s, heard.leading_s, heard.tail_s
        (1.25, 0.5, 1.0)
        >>> SpeechActivity(3.0, ()).leading_s
        3.0
    """

    duration_s: float
    spans: tuple[tuple[float, float], ...]

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def leading_s(self) -> float:
        """Seconds before the first speech; the whole clip where there is none."""
        return self.spans[0][0] if self.spans else self.duration_s

    @property
    def tail_s(self) -> float:
        """Seconds after the last speech; the whole clip where there is none."""
        return self.duration_s - (self.spans[-1][1] if self.spans else 0.0)


@dataclass(frozen=True)
class SpeechDetector:
    """silero-vad, and how its probabilities become stretches of speech. What it hears in a clip is the clip's alone.

    Neither network nor torch hub is asked for anything. The package itself is not imported: it would set torch to one
    thread for the whole process.

    Args:
        threshold: a stretch of speech begins at this probability, and ends below 0.15 less.
        min_speech_s: shorter stretches are none.
        min_silence_s: shorter pauses are part of the speech.

    Raises:
        ValueError: a threshold outside (0, 1), or a length below 0.

    Example:
        >>> windows = torch.tensor([0.0, 0.9, 0.9, 0.4, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0])
        >>> SpeechDetector(min_speech_s=0.1, min_silence_s=0.05).spans(windows)
        [(1, 6)]
    """

    threshold: float = 0.5
    min_speech_s: float = 0.1
    min_silence_s: float = 0.1

    def __post_init__(self) -> None:
        check_number("SpeechDetector.threshold", self.threshold, above=0, below=1)
        check_number("SpeechDetector.min_speech_s", self.min_speech_s, at_least=0)
        check_number("SpeechDetector.min_silence_s", self.min_silence_s, at_least=0)

    @torch.no_grad()
    def probabilities(self, waveform: Tensor, sample_rate_hz: int) -> Tensor:
        """[num_windows] on the CPU: the probability of speech in each 32 ms; the last window is filled with silence.

        Args:
            waveform: [num_samples], finite.
            sample_rate_hz: of it.

        Raises:
            ImportError: the extra ``vad`` is not installed.
        """
        clip = waveform.detach().float().cpu()
        # The resampler refuses a clip without samples.
        if not clip.numel():
            return clip
        clip = resample(clip, sample_rate_hz, SAMPLE_RATE_HZ)
        network = _network()
        with torch.autocast("cpu", enabled=False):
            return network(clip)

    def spans(self, probabilities: Tensor) -> list[tuple[int, int]]:
        """(first window, window behind the last) of each stretch of speech."""
        most_silent = round(self.min_silence_s * SAMPLE_RATE_HZ / _WINDOW)
        fewest = round(self.min_speech_s * SAMPLE_RATE_HZ / _WINDOW)

        spans: list[tuple[int, int]] = []
        begin: int | None = None
        end = 0
        for window, probability in enumerate(probabilities.tolist()):
            if begin is None:
                if probability >= self.threshold:
                    begin = window
                    end = window + 1
                continue

            if probability >= self.threshold - _HYSTERESIS:
                end = window + 1
            elif window + 1 - end >= most_silent:
                spans.append((begin, end))
                begin = None
        if begin is not None:
            spans.append((begin, end))
        return [(begin, end) for begin, end in spans if end - begin >= fewest]

    def listen(self, waveform: Tensor, sample_rate_hz: int) -> SpeechActivity:
        """Where speech is heard in one clip.

        Args:
            waveform: [num_samples], finite.
            sample_rate_hz: of it.

        Raises:
            ImportError: the extra ``vad`` is not installed.
        """
        duration_s = waveform.numel() / sample_rate_hz
        windows = self.spans(self.probabilities(waveform, sample_rate_hz))
        window_s = _WINDOW / SAMPLE_RATE_HZ
        # The last window may reach beyond the clip.
        spans = [(begin * window_s, min(end * window_s, duration_s)) for begin, end in windows]
        return SpeechActivity(duration_s, tuple(spans))


class _Network(nn.Module):
    """The 16 kHz half of silero-vad, over all windows of a clip at once."""

    def __init__(self) -> None:
        super().__init__()
        # Sines and cosines under a window, as a convolution.
        self.register_buffer("basis", torch.empty(_FRAME + 2, 1, _FRAME))
        half = _WIDTH // 2
        self.encoder = nn.Sequential(
            nn.Conv1d(_FRAME // 2 + 1, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(_WIDTH, half, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(half, half, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(half, _WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        self.memory = nn.LSTM(_WIDTH, _WIDTH)
        self.out = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, clip: Tensor) -> Tensor:
        """[num_samples] at 16 kHz -> [num_windows]."""
        missing = -len(clip) % _WINDOW
        padded = nn.functional.pad(clip, (_CONTEXT, missing))
        windows = padded.unfold(0, _CONTEXT + _WINDOW, _WINDOW)
        features = torch.cat([self._features(piece) for piece in windows.split(_AT_ONCE)])
        states, _ = self.memory(features[:, None])
        scores = self.out(states.relu().transpose(1, 2))
        return scores.sigmoid().flatten()

    def _features(self, windows: Tensor) -> Tensor:
        """[W, context and window] -> [W, width]."""
        mirrored = nn.functional.pad(windows[:, None], (0, _CONTEXT), mode="reflect")
        spectrum = nn.functional.conv1d(mirrored, self.get_buffer("basis"), stride=_HOP)
        cosines, sines = spectrum.chunk(2, dim=1)
        magnitude = (cosines.square() + sines.square()).sqrt()
        return self.encoder(magnitude).squeeze(-1)


#: Names in silero-vad's file and ours.
_NAMES = {
    "stft.forward_basis_buffer": "basis",
    **{
        f"encoder.{layer}.reparam_conv.{kind}": f"encoder.{2 * layer}.{kind}"
        for layer in range(4)
        for kind in ("weight", "bias")
    },
    **{
        f"decoder.rnn.{kind}_{gate}": f"memory.{kind}_{gate}_l0"
        for kind in ("weight", "bias")
        for gate in ("ih", "hh")
    },
    "decoder.decoder.2.weight": "out.weight",
    "decoder.decoder.2.bias": "out.bias",
}


def weights_file() -> Path:
    """The file of weights in the installed wheel.

    Raises:
        ImportError: the extra ``vad`` is not installed.
    """
    found = importlib.util.find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise ImportError(
            "hearing where speech is needs an extra package: pip install 'lightning-audiorl[vad]'"
        )
    return Path(found.submodule_search_locations[0]) / "data" / "silero_vad.jit"


def detector_version() -> str:
    """The version of the installed silero-vad: what is heard depends on it.

    Raises:
        ImportError: the extra ``vad`` is not installed.
    """
    weights_file()
    return metadata.version("silero-vad")


@cache
def _network() -> _Network:
    """Read once per process."""
    file = weights_file()
    if not file.is_file():
        raise ImportError(
            f"{file}: not in the installed silero-vad; pip install 'lightning-audiorl[vad]' takes one that has it"
        )
    with warnings.catch_warnings():
        # Torch advises against such files; this one is as the package ships it.
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.jit.load(str(file), map_location="cpu").state_dict()

    network = _Network()
    try:
        network.load_state_dict({ours: theirs[f"_model.{name}"] for name, ours in _NAMES.items()})
    except (KeyError, RuntimeError) as error:
        raise ImportError(
            f"silero-vad {detector_version()} has another network than this build knows; pip install "
            "'lightning-audiorl[vad]' takes one that it knows"
        ) from error
    network.requires_grad_(False)
    return network.eval()
