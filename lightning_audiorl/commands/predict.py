"""``audiorl predict``: a manifest decoded by one or more models, as JSON lines that builders of subsets read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from lightning_audiorl.callbacks.prediction_progress import PredictionProgress
from lightning_audiorl.callbacks.spoken_samples import write_wav
from lightning_audiorl.data.audio.bad_rows import OnBadRow
from lightning_audiorl.data.datamodules.asr import AsrDataModule
from lightning_audiorl.data.datamodules.predict import PredictionData
from lightning_audiorl.data.datamodules.tts import TtsDataModule, speech_source
from lightning_audiorl.data.hypotheses.rarely_right import rarely_right
from lightning_audiorl.data.hypotheses.reader import (
    Predicted,
    Sample,
    SpeechSample,
    row_fingerprint,
)
from lightning_audiorl.data.hypotheses.summary import summary
from lightning_audiorl.data.hypotheses.writer import HypothesisParts, RowsSurvey, survey_rows
from lightning_audiorl.data.manifest.files import ManifestRows
from lightning_audiorl.data.manifest.source import PickedRows, RowSource
from lightning_audiorl.engine.evaluator import EvalDecoding
from lightning_audiorl.engine.predict_module import Decoded, DecodedBatch, Prediction
from lightning_audiorl.judges.base import AsrJudge, SpeakerEncoder
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.silence import says_nothing
from lightning_audiorl.metrics.functional import align, biased_errors
from lightning_audiorl.metrics.speech import Judges
from lightning_audiorl.metrics.transcripts import character_errors
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.text import (
    ErrorCounts,
    KeywordCounts,
    compared,
    compared_units,
    count_errors,
    count_keywords,
    fired_rules,
    heard_words,
    normaliser_for,
    without_sounds,
)
from lightning_audiorl.text.keywords import keyword_units
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Utterance

_TRAINER = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


@dataclass
class SpeechPrediction:
    """What predicting with models that speak needs beside them: judges of their samples.

    Rows are read as `TtsDataModule` reads them: their text is to be spoken, their audio is the speaker prompt; the path
    of a manifest is that of a `SpeechManifest`.

    Args:
        judge: its transcript is the text of a sample; errors are counted in it.
        encoder: compares a sample's voice with its prompt's; None leaves the similarity out.
        save_audio: also writes each sample to ``<out>.audio/<model>/<number>_<decoding>_<sample>.wav``, where number is
            that of the row, from 0.
        prompt_s: (shortest, longest) speaker prompt, in seconds; one outside is an error.
        charset: all characters that a text may have; None allows any.
    """

    judge: AsrJudge
    encoder: SpeakerEncoder | None = None
    save_audio: bool = False
    prompt_s: tuple[float, float] = (0.3, 30.0)
    charset: str | None = None

    def record(self) -> dict[str, Any]:
        """The judges in plain data; lines of other judges are not mixed with these."""
        judges = {"judge": self.judge, "encoder": self.encoder}
        return {
            role: _record(model, model.name) for role, model in judges.items() if model is not None
        }


def _record(model: nn.Module, name: str) -> dict[str, str]:
    """Names a model, by its content too."""
    return {"name": name, "class": type(model).__name__, "content": content_hash(model)}


def predict(
    models: dict[str, Policy],
    rows: RowSource | str,
    out: str,
    decodings: dict[str, EvalDecoding] | None = None,
    keywords: list[str] | None = None,
    max_batch_s: float = 120.0,
    max_batch_size: int = 64,
    seed: int = 0,
    num_workers: int = 0,
    sample_rate_hz: int = 16000,
    limit_rows: int | None = None,
    overwrite: bool = False,
    trainer: dict[str, Any] | None = None,
    speech: SpeechPrediction | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    reference_logprob: bool | None = None,
) -> None:
    """Decode rows with one or more models and write their hypotheses, one JSON line per row and model.

    A run that was killed goes on where it stopped when the same command is given again, and its file is the one that
    an undisturbed run writes, but for measured seconds. Ends with a table of error rates and fired rules, in percent.

    Args:
        models: policies by name; the name stands in every line.
        rows: class path of rows, or the path of a JSONL manifest (texts may be empty).
        out: JSONL file; a row's lines stand together, in the order of rows and models.
        decodings: by name; by default "greedy", and "sampled" with 4 samples at temperature 1.
        keywords: counted in every row, beside the row's own.
        max_batch_s: padded seconds of audio per batch; of Whisper every clip is 30 s.
        max_batch_size: rows per batch.
        seed: keys every draw, with decoding, row and sample.
        num_workers: processes that read audio; 0 reads in this one.
        sample_rate_hz: what the models want.
        limit_rows: only the first so many rows.
        overwrite: start afresh where ``out`` was made, or begun, with something else.
        trainer: arguments of Lightning's Trainer, such as accelerator, devices, strategy, precision.
        speech: the judges of models that speak; None for models that write.
        on_bad_row: error stops at a row that cannot be used, or whose audio cannot; skip leaves such rows out and
            counts them. All audio is then read once before the first row is decoded.
        reference_logprob: also measure how probable each model that writes finds the row's text: one pass more. None
            does, but where `out` was begun without.
    """
    if not models:
        raise ValueError(
            "predict: `models` is empty; give at least one, as name: {class_path: ..., init_args: ...}"
        )
    if isinstance(rows, str) and Path(rows).resolve() == Path(out).resolve():
        raise ValueError(f"predict: out would replace the rows, {rows}; give another file")
    decodings = decodings or {
        "greedy": EvalDecoding(),
        "sampled": EvalDecoding(Decoding(temperature=1.0), 4),
    }
    keywords = keywords or []

    loader = _loader(
        speech,
        sample_rate_hz=sample_rate_hz,
        max_batch_s=max_batch_s,
        max_eval_batch_size=max_batch_size,
        num_workers=num_workers,
        on_bad_row=on_bad_row,
    )
    source = _source(rows, limit_rows, speech is not None, on_bad_row)
    source = loader.usable(source, "predict")
    survey = survey_rows(source)

    # All that the lines depend on. A file that was begun with something else is not gone on with.
    settings: dict[str, Any] = {
        "rows": {"number": survey.num_rows, "content": survey.content},
        "decodings": [{"name": name, **asdict(how)} for name, how in decodings.items()],
        "keywords": keywords,
        "seed": seed,
        "sample_rate_hz": sample_rate_hz,
        "models": [_record(policy, name) for name, policy in models.items()],
    }
    if speech is not None:
        settings["speech"] = speech.record()

    measures = _measures(reference_logprob, out, overwrite, speech is not None)
    if measures:
        settings["reference_logprob"] = True
    parts = HypothesisParts(out, settings, list(models), survey.num_rows)
    if not overwrite:
        parts.check()

    if overwrite or not parts.is_complete:
        judges = None
        folder = None
        if speech is not None:
            judges = Judges(judge=speech.judge, encoder=speech.encoder)
            folder = Path(f"{parts.out}.audio") if speech.save_audio else None

        for number, (name, policy) in enumerate(models.items()):
            # The first model's run clears what another command had begun.
            afresh = overwrite and number == 0
            if not afresh and parts.done(number).all():
                continue
            data = PredictionData(source, survey, parts, number, afresh, loader, folder)
            writer = HypothesisWriter(name, keywords, speech)
            module = Prediction(policy, decodings, seed, judges, measures)
            _run(module, data, writer, dict(trainer or {}))
    _finish(parts, survey)


@rank_zero_only
def _finish(parts: HypothesisParts, survey: RowsSurvey) -> None:
    """Join what all ranks wrote, and say what it holds."""
    if not parts.is_complete:
        parts.join()
    models = ", ".join(parts.models)
    said = rarely_right(parts.out)
    if said:
        print(f"{said}\n")
    print(f"{parts.out}: {survey.num_rows} rows, models: {models}\n")
    print(summary(parts.out, survey.units))


def _measures(wanted: bool | None, out: str, overwrite: bool, speaks: bool) -> bool:
    """Whether reference texts are measured; where nobody says, as the file was begun."""
    if speaks:
        if wanted:
            raise ValueError(
                "predict: reference_logprob is of models that write; leave it out, or leave out `speech`"
            )
        return False
    if wanted is not None:
        return wanted

    begun = Path(f"{Path(out).expanduser()}.settings.json")
    if overwrite or not begun.is_file():
        return True
    return bool(json.loads(begun.read_text(encoding="utf-8")).get("reference_logprob", False))


def _source(
    rows: RowSource | str, limit_rows: int | None, speaks: bool, on_bad_row: OnBadRow
) -> RowSource:
    """The first ``limit_rows`` rows."""
    if speaks:
        source = speech_source(rows, on_bad_row)
    elif isinstance(rows, str):
        source = ManifestRows(rows, allow_empty_text=True, on_bad_row=on_bad_row)
    else:
        source = rows
    if limit_rows is not None and limit_rows < 1:
        raise ValueError(f"predict: limit_rows must be at least 1, got {limit_rows}")
    if limit_rows is None or limit_rows >= len(source):
        return source
    return PickedRows(source, range(limit_rows))


def _loader(speech: SpeechPrediction | None, **settings: Any) -> AsrDataModule:
    """What reads the audio of batches: clips, or the speaker prompts of texts to be spoken."""
    if speech is None:
        return AsrDataModule(**settings)
    return TtsDataModule(speech.prompt_s, speech.charset, **settings)


def _run(
    module: Prediction, data: PredictionData, writer: HypothesisWriter, settings: dict[str, Any]
) -> None:
    """One model over the rows that it has not decoded; ``settings`` are the Trainer's."""
    callbacks: list[Callback] = [writer, *settings.pop("callbacks", [])]
    if settings.get("enable_progress_bar", True):
        callbacks.append(PredictionProgress(writer.model))
    trainer = Trainer(**{**_TRAINER, **settings, "callbacks": callbacks})
    trainer.predict(module, datamodule=data, return_predictions=False)


class HypothesisWriter(Callback):
    """Counts errors and rules in each batch, and adds its lines to this rank's part file as soon as it is decoded.

    Args:
        model: name of the model.
        keywords: counted in every row.
        speech: the judges, where the model speaks.
    """

    def __init__(
        self, model: str, keywords: list[str], speech: SpeechPrediction | None = None
    ) -> None:
        self.model = model
        self.keywords = keywords
        self.speech = speech

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """No rank writes before every rank knows what is done."""
        trainer.strategy.barrier()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """No rank goes on before every rank has written."""
        trainer.strategy.barrier()

    def on_predict_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of one batch that were not done before; their wav files first, where they are asked for."""
        data: PredictionData = trainer.datamodule
        numbers = data.batches[batch_idx]

        # A row is done when its line is there; its wav files then are, too.
        if data.audio_folder is not None:
            for number, group in zip(numbers, outputs.groups, strict=True):
                if not data.done[number]:
                    self._write_audio(data.audio_folder / self.model, number, group)

        lines = predicted(batch.rows, outputs, self.model, self.keywords, self.speech)
        missing = (
            (number, line)
            for number, line in zip(numbers, lines, strict=True)
            if not data.done[number]
        )
        data.parts.append(data.model, trainer.global_rank, missing)

    def _write_audio(self, folder: Path, number: int, group: list[Decoded]) -> None:
        for one in group:
            if one.hypothesis.speech is not None:
                name = f"{number:06d}_{one.decoding}_{one.sample}.wav"
                write_wav(folder / name, one.hypothesis.speech)


def predicted(
    rows: tuple[Utterance, ...],
    decoded: DecodedBatch,
    model: str,
    keywords: list[str],
    speech: SpeechPrediction | None = None,
) -> Iterator[Predicted]:
    """One record per row of a batch: hypotheses with their counts, log-probs and seconds to four decimals."""
    # The time of a batch is shared out by the seconds of its rows.
    second_s = decoded.seconds / max(sum(row.duration_s for row in rows), 1e-9)
    references = decoded.reference_log_probs or [math.nan] * len(rows)
    for row, group, log_prob in zip(rows, decoded.groups, references, strict=True):
        wanted = [*keywords, *row.keywords]
        samples = tuple(_sample(row, one, wanted, speech, decoded.panel) for one in group)
        seconds = round(second_s * row.duration_s, 4)
        known = None if math.isnan(log_prob) else round(log_prob, 4)
        yield Predicted(row.id, model, row.text, row_fingerprint(row), samples, seconds, known)


def _sample(
    row: Utterance,
    decoded: Decoded,
    keywords: list[str],
    speech: SpeechPrediction | None,
    panel: JudgePanel,
) -> Sample:
    """One hypothesis with its counts; the text of speech is the judge's transcript."""
    hypothesis = decoded.hypothesis

    # `Prediction` has had the judges asked; here the panel knows their answers.
    text: str | None = hypothesis.text
    spoken: SpeechSample | None = None
    if speech is not None:
        text = panel.ask(speech.judge, [hypothesis])[0]
        spoken = _speech_sample(hypothesis, text, speech.encoder, panel)

    # Without a transcript nothing is counted.
    errors = ErrorCounts()
    rules: tuple[str, ...] = ()
    found = KeywordCounts()
    biased: ErrorCounts | None = None
    if text is not None:
        normaliser = normaliser_for(row.lang)
        reference = row.text
        if speech is not None:
            text = heard_words(row.reference, text)
            reference = without_sounds(row.reference)
        texts = compared(reference, text, normaliser)
        errors = count_errors(*texts, normaliser.unit)
        rules = tuple(fired_rules(*compared_units(reference, text, normaliser), lang=row.lang))
        found = count_keywords(reference, text, keywords, normaliser)
        if keywords:
            listed = keyword_units(keywords, normaliser)
            biased = biased_errors(align(*texts, normaliser.unit), listed)

    return Sample(
        text=text or "",
        decoding=decoded.decoding,
        sample=decoded.sample,
        log_prob=round(decoded.log_prob, 4),
        num_tokens=hypothesis.num_tokens,
        finished=hypothesis.finished,
        errors=errors,
        rules=rules,
        keywords=found,
        speech=spoken,
        biased=biased,
    )


def _speech_sample(
    hypothesis: Hypothesis,
    transcript: str | None,
    encoder: SpeakerEncoder | None,
    panel: JudgePanel,
) -> SpeechSample:
    """What judges made of a sample, to four decimals."""
    speech = hypothesis.speech
    assert speech is not None

    cer: float | None = None
    if transcript is not None:
        normaliser = normaliser_for(hypothesis.row.lang)
        errors, characters = character_errors(hypothesis.row, transcript, normaliser)
        cer = round(errors / max(characters, 1), 4)

    # A sample that says nothing is like nobody's voice; of one that the encoder failed on nothing is known.
    similarity: float | None = None
    if encoder is not None and speech.prompt is not None and speech.prompt.numel():
        voice, prompt = panel.ask(encoder, [hypothesis])[0]
        if voice is not None and prompt is not None:
            similarity = round(float(voice @ prompt), 4)
        elif says_nothing(speech):
            similarity = -1.0
    return SpeechSample(cer, similarity, round(speech.duration_s, 4))
