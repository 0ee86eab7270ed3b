"""What a judge of speech is: a frozen model that transcribes it, or tells voices apart."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.judges.silence import SILENCE_DBFS, says_nothing, sound_dbfs
from lightning_audiorl.judges.transcript import LIKE_SILENCE, Transcript, measures_of
from lightning_audiorl.text.normalise import normaliser_for
from lightning_audiorl.types import MAX_AMPLITUDE, Hypothesis, Speech, Utterance

_log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")


class JudgeError(ValueError):
    """A judge was asked about something that it cannot judge, or its folder is not what it should be."""


class Judge(nn.Module, Generic[AnswerT]):
    """A frozen model in eval mode that answers one question about samples of speech.

    A judge remembers nothing: asked twice, it listens twice. `JudgePanel` keeps the answers of a step.

    Args:
        name: by which a panel, tables and log keys know it; judges with other weights want another name.
        sample_rate_hz: of the audio that it listens to; speech is resampled to it.
        batch_size: clips per pass.
        min_duration_s: shorter speech is lengthened by silence, for models that refuse a few samples.
    """

    def __init__(
        self,
        name: str,
        sample_rate_hz: int,
        batch_size: int = 16,
        min_duration_s: float = 0.1,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        if not name:
            raise ValueError(f"{kind}: want a name, got name={name!r}")
        check_count(f"{kind}.sample_rate_hz", sample_rate_hz, at_least=1)
        check_count(f"{kind}.batch_size", batch_size, at_least=1)
        check_number(f"{kind}.min_duration_s", min_duration_s, at_least=0)
        self.name = name
        self.sample_rate_hz = sample_rate_hz
        self.batch_size = batch_size
        self.min_duration_s = min_duration_s

    def answers(self, hypotheses: Sequence[Hypothesis]) -> list[AnswerT]:
        """One answer per sample, in order: a transcript, two embeddings, a quality.

        Raises:
            JudgeError: for a hypothesis without speech.
        """
        raise NotImplementedError(f"{type(self).__name__} answers no question about speech")

    def train(self, mode: bool = True) -> Self:
        """Nothing changes: a judge stays in eval mode."""
        return super().train(False)

    def freeze(self) -> None:
        """No gradients, eval mode: the last line of a judge's ``__init__``."""
        self.requires_grad_(False)
        self.train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        # A judge without weights, such as one that runs a program, hears on the CPU.
        return next((tensor.device for tensor in self.parameters()), torch.device("cpu"))

    def audible(self, waveform: Tensor, sample_rate_hz: int) -> Tensor:
        """[num_samples] as this judge takes it: at its rate, on its device, not too short.

        Raises:
            JudgeError: for samples that are NaN or infinite, or of no scale that audio has (`MAX_AMPLITUDE`).
        """
        # A model would give some answer to them, or a rounding error for the rest of its batch.
        if not bool(waveform.isfinite().all()):
            raise JudgeError(
                "the waveform holds NaN or infinite samples; look for them in the codec's decoder"
            )
        highest = float(waveform.abs().max()) if len(waveform) else 0.0
        if highest > MAX_AMPLITUDE:
            raise JudgeError(
                f"the waveform's samples reach {highest:.3g}, and full scale is 1; look at the scale of the codec's "
                "decoder"
            )

        clip: Tensor = resample(
            waveform.float().to(self.device), sample_rate_hz, self.sample_rate_hz
        )
        missing = round(self.min_duration_s * self.sample_rate_hz) - len(clip)
        return nn.functional.pad(clip, (0, max(missing, 0)))

    def each(
        self,
        items: list[Any],
        listen: Callable[[list[Any]], Sequence[Any]],
        names: list[str],
    ) -> list[Any]:
        """``listen`` over passes of ``batch_size``; None, with a warning, for an item that it raises on.

        A pass that raises is repeated item by item, so that one bad clip takes no other with it.

        Args:
            items: one per clip.
            listen: a pass over some of them, one answer each.
            names: the row of each, for the warning.

        Raises:
            JudgeError: for a pass with more or fewer answers than clips, or whose answers are no sequence: which answer
                is whose is not known.
        """
        answers: list[Any] = []
        for first in range(0, len(items), self.batch_size):
            piece = items[first : first + self.batch_size]
            try:
                # In its own precision, whatever the training's is; feature extractors know no bfloat16 at all.
                with torch.autocast(self.device.type, enabled=False):
                    of_piece = listen(piece)
            except Exception as error:  # noqa: BLE001 - any model, any failure: it is logged and counted
                if len(piece) == 1:
                    _log.warning(
                        "judge '%s' failed on the speech for row '%s': %r",
                        self.name,
                        names[first],
                        error,
                    )
                    answers.append(None)
                    continue
                of_piece = []
                for i, item in enumerate(piece, start=first):
                    of_piece += self.each([item], listen, [names[i]])

            # A set has no order, and of a text each letter would be an answer.
            if not isinstance(of_piece, Sequence) or isinstance(of_piece, str | bytes):
                raise JudgeError(
                    f"judge '{self.name}' gave a {type(of_piece).__name__} for {len(piece)} clips; expected a list "
                    "with one answer each"
                )
            if len(of_piece) != len(piece):
                raise JudgeError(
                    f"judge '{self.name}' gave {len(of_piece)} answers to {len(piece)} clips; expected one each"
                )
            answers += of_piece
        return answers


def speech_of(hypothesis: Hypothesis, judge: str) -> Speech:
    """The sample's speech.

    Raises:
        JudgeError: when there is none.
    """
    if hypothesis.speech is None:
        raise JudgeError(
            f"'{judge}' judges speech, but the hypothesis for row '{hypothesis.row.id}' is text; use it with a policy "
            "that speaks"
        )
    return hypothesis.speech


class AsrJudge(Judge[str | None], ABC):
    """Transcribes speech.

    Example:
        >>> class Loud(AsrJudge):
        ...     def listen(self, waveforms, rows):
        ...         return ["loud" if wave.abs().max() > 0.5 else "quiet" for wave in waveforms]
        >>> speech = Speech(torch.tensor([1.0, -1.0]).repeat(4000), 8000, torch.zeros(25, dtype=torch.int64))
        >>> sample = Hypothesis(Utterance("row", (), "loud", 1.0), "", speech=speech)
        >>> Loud("loud", sample_rate_hz=8000).transcribe([sample])
        ['loud']

    Attributes:
        silence_check: whether a transcript that a silent clip gets, too, counts as empty: it says nothing about the
            speech. A silent clip of as many whole seconds is transcribed once for each language and length. Texts that
            are no more than what the judge hears in silence ("you", of Whisper) can then never be a hit.
        reports: the `MEASURES` that its transcripts have.
    """

    silence_check: bool = False

    @property
    def reports(self) -> tuple[str, ...]:
        """What is measured of each sample beside its words, by name."""
        return (LIKE_SILENCE,) if self.silence_check else ()

    @abstractmethod
    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> Sequence[str | None]:
        """One transcript per clip, not normalised; None where the model gave nothing at all.

        Args:
            waveforms: [num_samples] each, finite, at ``sample_rate_hz``, on the judge's device.
            rows: what each clip is a hypothesis for; a judge may read the language, not the text.
        """

    def answers(self, hypotheses: Sequence[Hypothesis]) -> list[str | None]:
        """The transcripts of `transcribe`."""
        return self.transcribe(hypotheses)

    @torch.no_grad()
    def transcribe(self, hypotheses: Sequence[Hypothesis]) -> list[str | None]:
        """The transcript of each sample; None where the judge failed.

        Speech that is empty or silent (`says_nothing`) is not listened to: its transcript is empty.

        Raises:
            JudgeError: for a hypothesis without speech.
        """
        speeches = [speech_of(hypothesis, self.name) for hypothesis in hypotheses]

        # Silence is not shown to the model, which might hear something in it.
        spoken = [i for i, speech in enumerate(speeches) if not says_nothing(speech)]

        def listen(index: list[int]) -> Sequence[str | None]:
            chosen = [speeches[i] for i in index]
            waveforms = [self.audible(speech.waveform, speech.sample_rate_hz) for speech in chosen]
            rows = [hypotheses[i].row for i in index]
            heard: Sequence[str | None] | None = self.listen(waveforms, rows)
            if heard is None:
                raise TypeError("listen gave None; expected a list with one answer each")
            return heard

        transcripts = self.each(spoken, listen, [hypotheses[i].row.id for i in spoken])
        for transcript in transcripts:
            if not isinstance(transcript, str | None):
                raise JudgeError(
                    f"judge '{self.name}' gave {str(transcript)[:80]} of type {type(transcript).__name__} as a "
                    "transcript; expected a text, or None"
                )
        by_sample = dict(zip(spoken, transcripts, strict=True))
        if self.silence_check:
            for i, transcript in by_sample.items():
                seconds = math.ceil(speeches[i].duration_s)
                by_sample[i] = self._beside_silence(transcript, hypotheses[i].row.lang, seconds)
        return [by_sample.get(i, "") for i in range(len(speeches))]

    def _beside_silence(self, transcript: str | None, lang: str, seconds: int) -> str | None:
        """The transcript, an empty one where a silent clip so long gets the same."""
        if transcript is None:
            return None

        normaliser = normaliser_for(lang)
        said = normaliser.normalise(transcript)
        is_like_silence = bool(said) and said == normaliser.normalise(
            self._silent_transcript(lang, seconds)
        )
        measures = {**measures_of(transcript), LIKE_SILENCE: float(is_like_silence)}
        return Transcript("" if is_like_silence else transcript, measures, heard=str(transcript))

    def _silent_transcript(self, lang: str, seconds: int) -> str:
        """What is heard in silence of that length, for a row of that language."""
        # Kept: it depends on nothing but the judge, and a judge is frozen.
        known: dict[tuple[str, int], str] = self.__dict__.setdefault("_silent_transcripts", {})
        if (lang, seconds) not in known:
            row = Utterance("a silent clip", (), "", float(seconds), lang=lang)
            clip = torch.zeros(seconds * self.sample_rate_hz, device=self.device)
            (heard,) = self.each([clip], lambda clips: self.listen(clips, [row]), [row.id])
            if heard is None:
                raise JudgeError(
                    f"judge '{self.name}' gave no transcript of {seconds} s of silence, which its silence_check "
                    "compares others with; set silence_check: false"
                )
            known[lang, seconds] = str(heard)
        return known[lang, seconds]


def require_numbers(values: Tensor) -> None:
    """See that a judge has computed numbers: the best of NaN would be some token, and often an empty transcript.

    Args:
        values: scores or log-probabilities, of any shape; -inf, which forbids a token, may be among them.

    Raises:
        JudgeError: for NaN and infinity.
    """
    # A maximum is NaN where any value is.
    if values.numel() and not float(values.max()) < math.inf:
        raise JudgeError(
            "the model computes NaN or infinite scores from the waveform; look at its weights and dtype"
        )


def _require_directions(embeddings: Tensor) -> None:
    """See that embeddings are vectors [B, D] that a cosine can be taken of."""
    if embeddings.ndim != 2:
        raise JudgeError(
            f"the embedding of the voice has the shape {list(embeddings.shape)[1:]}; expected [D]"
        )
    if not bool(embeddings.isfinite().all()):
        raise JudgeError("the embedding of the voice holds NaN or infinite values")
    lengths = embeddings.norm(dim=-1)
    worst = float(lengths[(lengths - 1).abs().argmax()])
    # As far as half precision is from it.
    if abs(worst - 1) > 0.01:
        raise JudgeError(
            f"the embedding of the voice is of length {worst:.4g}, expected 1; divide it by that"
        )


#: What a `SpeakerEncoder` answers: the embedding of a sample and that of its prompt.
Voices = tuple[Tensor | None, Tensor | None]


class SpeakerEncoder(Judge[Voices], ABC):
    """Tells voices apart: embeddings whose cosine is high for the same speaker.

    Example:
        >>> class Signs(SpeakerEncoder):
        ...     def embed(self, waveform, num_samples, sample_rate_hz):
        ...         return torch.nn.functional.normalize(waveform[:, :2], dim=-1)
        >>> prompt = torch.tensor([1.0, 0.0])
        >>> speech = Speech(torch.tensor([3.0, 4.0]), 8000, torch.zeros(1), prompt, 8000)
        >>> sample = Hypothesis(Utterance("row", (), "one", 1.0), "", speech=speech)
        >>> ((voice, of_prompt),) = Signs("signs", sample_rate_hz=8000, min_duration_s=0.0).voices([sample])
        >>> round(float(voice @ of_prompt), 3)
        0.6
    """

    @abstractmethod
    def embed(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        sample_rate_hz: int,
    ) -> Tensor:
        """[B, S] clips -> [B, D] embeddings of length 1. A clip's embedding does not depend on the batch."""

    def answers(self, hypotheses: Sequence[Hypothesis]) -> list[Voices]:
        """The embeddings of `voices`."""
        return self.voices(hypotheses)

    @torch.no_grad()
    def voices(self, hypotheses: Sequence[Hypothesis]) -> list[Voices]:
        """([D] of the sample, [D] of its prompt) on the CPU; None where there is no sound or the encoder failed.

        A prompt that samples share (the same tensor) is embedded once.

        Raises:
            JudgeError: for a hypothesis without speech.
        """
        speeches = [speech_of(hypothesis, self.name) for hypothesis in hypotheses]

        # Each clip once, by the tensor that holds it: (audio, rate, row). A sample comes before its prompt.
        clips: dict[int, tuple[Tensor, int, str]] = {}
        for hypothesis, speech in zip(hypotheses, speeches, strict=True):
            row_id = hypothesis.row.id
            if not says_nothing(speech):
                clips[id(speech.waveform)] = (speech.waveform, speech.sample_rate_hz, row_id)
            prompt = speech.prompt
            prompt_rate_hz = speech.prompt_sample_rate_hz
            if prompt is not None and not sound_dbfs(prompt, prompt_rate_hz) < SILENCE_DBFS:
                clips[id(prompt)] = (prompt, prompt_rate_hz, row_id)

        def listen(keys: list[int]) -> list[Tensor]:
            waves = [self.audible(*clips[key][:2]) for key in keys]
            lengths = torch.tensor([len(wave) for wave in waves], device=self.device)
            padded = pad_sequence(waves, batch_first=True)
            embeddings = self.embed(padded, lengths, self.sample_rate_hz).float().cpu()
            _require_directions(embeddings)
            return list(embeddings)

        names = [row_id for _, _, row_id in clips.values()]
        by_clip = dict(zip(clips, self.each(list(clips), listen, names), strict=True))

        voices: list[Voices] = []
        for speech in speeches:
            voice = by_clip.get(id(speech.waveform))
            of_prompt = by_clip.get(id(speech.prompt))
            voices.append((voice, of_prompt))
        return voices
