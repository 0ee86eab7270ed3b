"""Judges of models that transformers loads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchaudio.functional import resample
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioXVector,
    AutoModelForCTC,
    AutoModelForRNNT,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTDT,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    WhisperForConditionalGeneration,
)

from lightning_audiorl.judges.base import AsrJudge, JudgeError, SpeakerEncoder, require_numbers
from lightning_audiorl.judges.models.closed_vocabulary import ClosedVocabulary
from lightning_audiorl.judges.models.confidence import GreedyConfidence, no_speech_token
from lightning_audiorl.judges.models.whisper_window import (
    CutWindow,
    by_window,
    encode_windows,
    ends_in_a_loop,
)
from lightning_audiorl.judges.transcript import (
    HEARD_AGAIN,
    LOG_PROB,
    NO_SPEECH_PROB,
    Transcript,
    measures_of,
)
from lightning_audiorl.languages import MIXED, language_of
from lightning_audiorl.types import Utterance
from lightning_audiorl.weights.families import (
    is_encoder_decoder,
    is_tdt,
    is_transducer,
    what_it_is,
)
from lightning_audiorl.weights.pretrained import config_of, load_pretrained
from lightning_audiorl.weights.tensors import WeightsError

_log = logging.getLogger(__name__)


class _Numbers(LogitsProcessor):
    """Changes nothing; raises where a model computes NaN in generation."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        require_numbers(scores)
        return scores


class TransformersJudge(AsrJudge):
    """Any recogniser of transformers: CTC (Wav2Vec2, Parakeet, ...), encoder-decoder (Whisper, ...) or transducer.

    CTC models and transducers judge, and take no GRPO: what they say of a clip is a sum over all alignments of a text
    with its frames, and not a product over tokens that were drawn one by one.

    It hears the whole of every sample. One that is longer than Whisper's window is transcribed window by window, as
    transformers' long-form generation does it, where the model knows timestamps; else it counts as a failure.

    Args:
        source: folder or hub id; safetensors only.
        kind: "ctc", "seq2seq" or "transducer".
        name: see Judge; by default the last part of ``source``.
        revision: of a hub id.
        dtype: of the weights, "float32" or "bfloat16".
        generate: for seq2seq and transducers, arguments of ``generate`` such as ``{"task": "transcribe"}``. A
            multilingual Whisper hears each row in the row's own ``lang``, unless ``language`` is set here; a row in
            another language is then said once.
        batch_size: clips per pass of a seq2seq model; Whisper pads every clip to 30 s, of others 1 keeps a transcript
            from depending on the batch. CTC models and transducers always take one clip per pass.
        min_duration_s: shorter speech is lengthened by silence.
        window_tail_s: of Whisper, cuts the window of 30 s to the clip and so many seconds of silence behind it: a
            fraction of the time for short clips, and transcripts that may differ. A transcript that ends by saying
            the same twice is heard again in the whole window; how often is in log and evaluation, and each costs what
            the cut saves. None takes the whole window for all.
        window_rest_step: of the positions behind a window that is cut every so many-th is kept, without which Whisper
            often repeats itself; 0 keeps none.
        confidence: for seq2seq, also measures how sure the model is, for log and evaluation: the mean log-probability
            of the tokens of each transcript, and of a Whisper the probability that a clip holds no speech. The
            transcripts stay what they are.
        silence_check: a transcript that a silent clip gets, too, counts as empty, see AsrJudge: Whisper writes "you" on
            silence. How often that happened is in log and evaluation.
        words: for seq2seq, the only words that may be written, any number of them in any order: a digit is then not
            heard as "Bye". As the model writes them, in one window; None leaves all to it.
    """

    def __init__(
        self,
        source: str,
        kind: Literal["ctc", "seq2seq", "transducer"],
        name: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        generate: dict[str, Any] | None = None,
        batch_size: int = 1,
        min_duration_s: float = 0.1,
        window_tail_s: float | None = None,
        window_rest_step: int = 8,
        confidence: bool = False,
        silence_check: bool = False,
        words: Sequence[str] | None = None,
    ) -> None:
        if kind not in ("ctc", "seq2seq", "transducer"):
            raise ValueError(
                f"TransformersJudge.kind: expected 'ctc', 'seq2seq' or 'transducer', got {kind!r}"
            )
        is_greedy = kind == "seq2seq" and (generate or {}).get("num_beams", 1) == 1
        if confidence and not is_greedy:
            raise ValueError(
                "TransformersJudge.confidence: wants kind: seq2seq, and no num_beams in generate: it is that of tokens "
                "chosen one by one; leave it out"
            )

        if words is not None and kind != "seq2seq":
            raise ValueError(
                f"TransformersJudge.words: wants kind: seq2seq, got {kind}; leave it out"
            )
        if words is not None and (isinstance(words, str) or not all(words) or not words):
            raise ValueError(f"TransformersJudge.words: want a list of words, got {words!r}")

        model, processor = load_pretrained(
            _model_class(kind, source, revision),
            AutoProcessor,
            source,
            f"TransformersJudge with kind: {kind}",
            revision,
            dtype=getattr(torch, dtype),
        )

        rate_hz = processor.feature_extractor.sampling_rate
        super().__init__(name or Path(source).name, rate_hz, batch_size, min_duration_s)
        self.model = model
        self.processor = processor
        self.kind = kind
        self.generate = dict(generate or {})
        self.window_tail_s = window_tail_s
        self.window_rest_step = window_rest_step
        self._window: CutWindow | None = None
        if window_tail_s is not None:
            self._window = CutWindow(
                model, processor.feature_extractor, window_tail_s, window_rest_step
            )
        self.confidence = confidence
        self.silence_check = silence_check
        self.words = None if words is None else tuple(words)
        if words is not None:
            self._new_vocabulary()
        self._no_speech = no_speech_token(processor.tokenizer) if confidence else None
        self._said_language = False
        self.freeze()

    @property
    def reports(self) -> tuple[str, ...]:
        """What is measured of each sample: see ``confidence``, ``silence_check`` and ``window_tail_s``."""
        measured = super().reports
        if self._window is not None:
            measured = (*measured, HEARD_AGAIN)
        if self._no_speech is not None:
            measured = (NO_SPEECH_PROB, *measured)
        return (LOG_PROB, *measured) if self.confidence else measured

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        # One clip per pass: padding reaches into the features of some CTC models.
        if self.kind == "ctc":
            return [self._most_likely_frames(wave) for wave in waveforms]
        if self.kind == "transducer":
            return [self._greedy_path(wave) for wave in waveforms]

        # Alone: long-form generation writes timestamps, which changes what it hears in the clips beside it.
        is_long = any(self._is_long(wave) for wave in waveforms)
        if is_long and len(waveforms) > 1:
            pairs = zip(waveforms, rows, strict=True)
            return [self.listen([wave], [row])[0] for wave, row in pairs]

        texts: list[str | None] = [None] * len(waveforms)
        for language, members in self._passes(waveforms, rows):
            clips = [waveforms[i] for i in members]
            how: dict[str, Any] = {"return_timestamps": True} if is_long else {}
            if language:
                how["language"] = language
            for i, text in zip(members, self._of_a_pass(clips, how, is_long), strict=True):
                texts[i] = text
        return texts

    def _of_a_pass(self, clips: list[Tensor], how: dict[str, Any], is_long: bool) -> list[str]:
        """What an encoder-decoder hears in clips of one language, and of one window where it is cut."""
        extractor = self.processor.feature_extractor
        window = None if is_long else self._window
        if window is not None:
            found = self._greedy_texts({"encoder_outputs": window.encode(clips)}, how)
            # A window that ends early makes Whisper repeat itself: what looks like it is heard again in the whole one.
            again = [i for i, (_, tokens) in enumerate(found) if ends_in_a_loop(tokens)]
        else:
            # The whole window for all of them.
            found = [("", ())] * len(clips)
            again = list(range(len(clips)))

        if again:
            some = [clips[i] for i in again]
            inputs: dict[str, Any] = dict(
                _features(extractor, some, self.sample_rate_hz, self.model, is_long)
            )
            if isinstance(self.model, WhisperForConditionalGeneration) and not is_long:
                windows = inputs["input_features"]
                inputs = {"encoder_outputs": encode_windows(self.model.model.encoder, windows)}
            for i, one in zip(again, self._greedy_texts(inputs, how), strict=True):
                found[i] = one

        texts = [text for text, _ in found]
        if window is None:
            return texts
        return [
            Transcript(text, {**measures_of(text), HEARD_AGAIN: float(i in again)})
            for i, text in enumerate(texts)
        ]

    def _greedy_texts(
        self, inputs: dict[str, Any], how: dict[str, Any]
    ) -> list[tuple[str, Sequence[int]]]:
        """What an encoder-decoder writes, text and tokens per clip, with how sure it is where that was asked for."""
        watchers: list[LogitsProcessor] = [_Numbers()]
        if self.words is not None:
            watchers.append(self._new_vocabulary())
        sure: GreedyConfidence | None = None
        if self.confidence:
            encoded = inputs["encoder_outputs"][0] if "encoder_outputs" in inputs else None
            sure = GreedyConfidence(self.model, self._no_speech, encoded)
            watchers.append(sure)

        how = how | {"logits_processor": LogitsProcessorList(watchers)}
        with sure.watching() if sure is not None else nullcontext():
            ids = self.model.generate(**inputs, do_sample=False, **how | self.generate)

        tokenizer = self.processor.tokenizer
        texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        special = set(tokenizer.all_special_ids)
        tokens = [[token for token in line if token not in special] for line in ids.tolist()]
        if sure is not None:
            pairs = zip(texts, sure.measures(), strict=True)
            texts = [Transcript(text, measures) for text, measures in pairs]
        return list(zip(texts, tokens, strict=True))

    def _new_vocabulary(self) -> ClosedVocabulary:
        """What keeps one call of ``generate`` to the words.

        Raises:
            ValueError: for words that the tokenizer cannot write.
        """
        ends = torch.tensor(self.model.generation_config.eos_token_id).reshape(-1).tolist()
        return ClosedVocabulary(self.processor.tokenizer, self.words or (), ends)

    def _inputs(self, wave: Tensor) -> dict[str, Tensor]:
        extractor = self.processor.feature_extractor
        return _features(extractor, [wave], self.sample_rate_hz, self.model)

    def _most_likely_frames(self, wave: Tensor) -> str:
        """What a CTC model hears in a clip [num_samples]."""
        inputs = self._inputs(wave)
        # A model that decodes by itself knows where its frames end; behind that it writes what no clip said.
        if self.model.can_generate():
            made = self.model.generate(**inputs, return_dict_in_generate=True)
            logits = made.logits[0]
            best = made.sequences[0]
        else:
            logits = self.model(**inputs).logits[0]
            best = logits.argmax(-1)
        require_numbers(logits)
        return str(self.processor.tokenizer.decode(best, skip_special_tokens=True))

    def _greedy_path(self, wave: Tensor) -> str:
        """What a transducer hears in a clip [num_samples]."""
        config = self.model.config
        how: dict[str, Any] = {"logits_processor": LogitsProcessorList([_Numbers()])}
        # Scores of durations stand behind those of tokens, and are none.
        num_durations = len(getattr(config, "durations", ()))
        if num_durations:
            suppressed = self.model.generation_config.suppress_tokens or []
            durations = range(config.vocab_size, config.vocab_size + num_durations)
            how["suppress_tokens"] = sorted({*suppressed, *durations})

        made = self.model.generate(**self._inputs(wave), do_sample=False, **how | self.generate)
        tokens = made.sequences[0]
        said = tokens[tokens != config.blank_token_id]
        # A token that is there twice was said twice, other than in CTC.
        return str(
            self.processor.tokenizer.decode(said, skip_special_tokens=True, group_tokens=False)
        )

    def _passes(
        self, waveforms: list[Tensor], rows: list[Utterance]
    ) -> list[tuple[str, list[int]]]:
        """Language and numbers of the clips that are heard together."""
        groups = list(self._by_language(rows).items())
        if self._window is None:
            return groups

        passes = []
        for language, members in groups:
            for found in by_window(self._window, [waveforms[i] for i in members]).values():
                passes.append((language, [members[i] for i in found]))
        return passes

    def _by_language(self, rows: list[Utterance]) -> dict[str, list[int]]:
        """Numbers of the rows by the language to hear them in; "" leaves it to ``generate``."""
        config = self.model.generation_config
        tokens = getattr(config, "lang_to_id", None) or {}
        fixed = self.generate.get("language")
        if fixed is None and getattr(config, "is_multilingual", None) is False:
            fixed = "en"
        if not tokens or fixed is not None:
            self._look_at_languages(rows, fixed)
            return {"": list(range(len(rows)))}

        # By any code that the row has; the model's own is an old one for some, such as jw.
        names = [token.strip("<|>") for token in tokens]
        by_code = {language_of(name): name for name in names}
        groups: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            code = language_of(row.lang)
            if code not in by_code and code != MIXED:
                self._say_once(row, "knows no such language, and guesses it from the audio")
            groups.setdefault(by_code.get(code, ""), []).append(i)
        return groups

    def _look_at_languages(self, rows: list[Utterance], fixed: str | None) -> None:
        """Say once where a row is in another language than the one that all are heard in."""
        if fixed is None:
            return
        heard = language_of(fixed.strip("<|>"))
        for row in rows:
            if language_of(row.lang) not in ("", MIXED, heard):
                self._say_once(row, f"hears all as {fixed!r}; leave `language` out of `generate`")

    def _say_once(self, row: Utterance, problem: str) -> None:
        if not self._said_language:
            _log.warning(
                "row %r has lang %r, but judge '%s' %s. Said once; other rows may be alike",
                row.id,
                row.lang,
                self.name,
                problem,
            )
        self._said_language = True

    def _is_long(self, wave: Tensor) -> bool:
        """Whether a clip [num_samples] is longer than the model's window, which its extractor would cut it to.

        Raises:
            JudgeError: where it is, and the model cannot go on from one window to the next.
        """
        window = getattr(self.processor.feature_extractor, "n_samples", None)
        if window is None or len(wave) <= window:
            return False

        rate_hz = self.sample_rate_hz
        length = f"{len(wave) / rate_hz:.3f} s of audio; this model takes {window / rate_hz:.1f} s at once"
        # Its timestamps are no words.
        if self.words is not None:
            raise JudgeError(
                f"{length}, and kept to words it hears no more: lower the policy's max_new_tokens, or leave words out"
            )

        # Where a window ends in the middle of a word, its last timestamp says from where the next one starts.
        last = getattr(self.model.generation_config, "no_timestamps_token_id", None)
        if last is None or last + 1 >= self.model.config.vocab_size:
            raise JudgeError(
                f"{length}, and has no timestamps to go on from there: lower the policy's max_new_tokens, or take a "
                "judge without a window"
            )
        return True


class TransformersSpeakerEncoder(SpeakerEncoder):
    """Any x-vector model of transformers (WavLM, UniSpeech-SAT, Wav2Vec2, ...), one clip per pass.

    Args:
        source: folder or hub id; safetensors only.
        name: see Judge; by default the last part of ``source``.
        revision: of a hub id.
        min_duration_s: shorter speech is lengthened by silence.
    """

    def __init__(
        self,
        source: str,
        name: str | None = None,
        revision: str | None = None,
        min_duration_s: float = 0.5,
    ) -> None:
        model, extractor = load_pretrained(
            AutoModelForAudioXVector,
            AutoFeatureExtractor,
            source,
            "TransformersSpeakerEncoder",
            revision,
        )
        super().__init__(
            name or Path(source).name, extractor.sampling_rate, min_duration_s=min_duration_s
        )
        self.model = model
        self.extractor = extractor
        self.freeze()

    @torch.no_grad()
    def embed(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        sample_rate_hz: int,
    ) -> Tensor:
        found = []
        for wave, length in zip(waveform, num_samples.tolist(), strict=True):
            clip = resample(wave[:length], sample_rate_hz, self.sample_rate_hz)
            inputs = _features(self.extractor, [clip], self.sample_rate_hz, self.model)
            found.append(self.model(**inputs).embeddings)
        return nn.functional.normalize(torch.cat(found).float(), dim=-1)


def _model_class(kind: str, source: str, revision: str | None) -> Any:
    """What loads a recogniser, seen to be of the kind that the judge was told; auto classes take more than that.

    Raises:
        WeightsError: saying what it is, and what takes it.
    """
    values = config_of(source, revision).to_dict()
    found = f"TransformersJudge.kind {kind}: {source} holds {what_it_is(values)}"
    if is_transducer(values) != (kind == "transducer"):
        what = "no transducer" if kind == "transducer" else "a transducer; set kind: transducer"
        raise WeightsError(f"{found}: it is {what}")
    if kind == "transducer":
        return AutoModelForTDT if is_tdt(values) else AutoModelForRNNT
    if kind == "seq2seq" and not is_encoder_decoder(values):
        raise WeightsError(
            f"{found}: it is no encoder-decoder. A language model that reads audio judges as a PolicyJudge around a "
            "policy of its family, such as FunAsrNanoPolicy; a recogniser with a CTC head with kind: ctc"
        )
    return AutoModelForCTC if kind == "ctc" else AutoModelForSpeechSeq2Seq


def _features(
    extractor: Any,
    waveforms: list[Tensor],
    sample_rate_hz: int,
    model: nn.Module,
    is_long: bool = False,
) -> dict[str, Tensor]:
    """The model's inputs, on its device and in its precision; all of a clip longer than Whisper's window."""
    # Whisper's pads to its 30 s by default, which is what its encoder takes.
    how: dict[str, Any] = {}
    if not hasattr(extractor, "chunk_length"):
        how["padding"] = True
    elif is_long:
        how |= {"padding": "longest", "truncation": False, "return_attention_mask": True}
    audio = [wave.cpu().numpy() for wave in waveforms]
    inputs = extractor(audio, sampling_rate=sample_rate_hz, return_tensors="pt", **how)

    # Masks stay whole numbers.
    weight = next(model.parameters())
    return {
        key: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
        for key, value in inputs.items()
    }
