"""Sound in TensorBoard: with captions, bounded in length, number and size; the clips of a set that changed most."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.audio.metadata import create_summary_metadata
from tensorboard.plugins.audio.plugin_data_pb2 import AudioPluginData
from torch import Tensor
from torch.utils.tensorboard.summary import audio

from lightning_audiorl.callbacks.outputs import printable
from lightning_audiorl.text import compared_units, normaliser_for
from lightning_audiorl.text.alignment import aligned_units, num_errors
from lightning_audiorl.types import Hypothesis

_log = logging.getLogger(__name__)

_MIB = 2**20
#: TensorBoard writes 16 bits a sample.
_BYTES_PER_SAMPLE = 2
#: Characters of a part of a caption.
_LONGEST_PART = 120


def caption_of(parts: Sequence[str]) -> str:
    """Parts of a caption on one line, each shortened.

    Example:
        >>> caption_of(["said: one", "heard: " + "two " * 40])[:30]
        'said: one | heard: two two two'
    """
    shortened = [
        textwrap.shorten(printable(part), _LONGEST_PART, placeholder=" …") for part in parts
    ]
    return " | ".join(shortened)


class ClipWriter:
    """Writes clips to TensorBoard until a run has its fill.

    TensorBoard keeps one caption for each tag, that of its first clip; so each clip has a tag of its own.

    Args:
        max_audio_s: clips are cut here, in seconds; 0 writes none.
        max_mib: of all clips of a run.

    Attributes:
        num_bytes: written so far, those before a resume included.
    """

    def __init__(self, max_audio_s: float, max_mib: float) -> None:
        self.max_audio_s = max_audio_s
        self.max_mib = max_mib
        self.num_bytes = 0
        self._has_said = False

    def write(
        self,
        writer: Any,
        tag: str,
        waveform: Tensor,
        sample_rate_hz: int,
        step: int,
        caption: str,
    ) -> bool:
        """Write a clip; False where it is empty, or the run has its fill.

        Args:
            writer: a SummaryWriter.
            tag: in TensorBoard, of this clip alone.
            waveform: [num_samples], finite.
            sample_rate_hz: of it.
            step: RL step.
            caption: heading of its player.
        """
        num_samples = min(len(waveform), round(min(self.max_audio_s, 1e6) * sample_rate_hz))
        if num_samples <= 0:
            return False

        size = _BYTES_PER_SAMPLE * num_samples
        if self.num_bytes + size > self.max_mib * _MIB:
            if not self._has_said:
                self._has_said = True
                _log.warning(
                    "samples: the run has written %.3g MiB of sound to TensorBoard, and writes no more; see "
                    "samples.max_audio_mib",
                    self.num_bytes / _MIB,
                )
            return False

        self.num_bytes += size
        wave = waveform[:num_samples].detach().float().cpu().clamp(-1, 1)
        writer.file_writer.add_summary(_captioned(tag, wave, sample_rate_hz, caption), step)
        return True


def _captioned(tag: str, waveform: Tensor, sample_rate_hz: int, caption: str) -> Any:
    """A clip as TensorBoard 2 keeps it; of the older kind, which torch writes, its server drops the caption."""
    older = audio(tag, waveform[None], sample_rate=sample_rate_hz)
    sound = TensorProto(
        dtype="DT_STRING", string_val=[older.value[0].audio.encoded_audio_string, b""]
    )
    # One clip, and its label, which the page does not show.
    for size in (1, 2):
        sound.tensor_shape.dim.add(size=size)

    metadata = create_summary_metadata(caption, "", AudioPluginData.Encoding.Value("WAV"))
    value = Summary.Value(tag=tag, tensor=sound, metadata=metadata)
    return Summary(value=[value])


# --- a policy that transcribes: the clips of a set that changed most


def errors_of(hypothesis: Hypothesis, text: str) -> tuple[int, int]:
    """(errors of ``text``, units of the reference), as they are compared.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> errors_of(Hypothesis(Utterance("a", (), "Turn left.", 1.0), ""), "turn the left")
        (1, 2)
    """
    row = hypothesis.row
    reference, units = compared_units(row.text, text, normaliser_for(row.lang))
    return num_errors(aligned_units(reference, units)), len(reference)


def changed_most(
    groups: Sequence[Sequence[Hypothesis]], start: Mapping[str, str], num_clips: int
) -> list[Hypothesis]:
    """The first hypotheses of the groups whose errors have changed most since the start; of equal ones the worst.

    Args:
        groups: of a set.
        start: the first hypothesis' text at the first evaluation, by the row's id.
        num_clips: at most so many.
    """
    ranked = []
    for place, (first, *_) in enumerate(groups):
        now, _ = errors_of(first, first.text)
        before, _ = errors_of(first, start.get(first.row.id, first.text))
        ranked.append((-abs(now - before), -now, place))
    return [groups[place][0] for *_, place in sorted(ranked)[:num_clips]]


def heard_caption(hypothesis: Hypothesis, start: str | None) -> str:
    """The reference, what was heard at the start and what is heard now, with error rates.

    Args:
        hypothesis: of a clip.
        start: its text at the first evaluation; None at that one.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> heard_caption(Hypothesis(Utterance("a", (), "one two", 1.0), "one two"), start="one")
        'said: one two | at first: one (50 % errors) | now: one two (0 % errors)'
    """
    parts = [f"said: {hypothesis.row.text or '(nothing)'}"]
    if start is not None:
        parts.append(f"at first: {_with_rate(hypothesis, start)}")
    label = "heard" if start is None else "now"
    parts.append(f"{label}: {_with_rate(hypothesis, hypothesis.text)}")
    return caption_of(parts)


def _with_rate(hypothesis: Hypothesis, text: str) -> str:
    errors, units = errors_of(hypothesis, text)
    rate = f" ({100 * errors / units:.0f} % errors)" if units else ""
    return f"{text or '(nothing)'}{rate}"
