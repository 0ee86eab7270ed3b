"""One line of decoded hypotheses: what it holds, and how it is written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from lightning_audiorl.data.manifest.json_lines import (
    JsonLineError,
    filled,
    num_quotes,
    read_object,
    show,
)
from lightning_audiorl.text import ErrorCounts, KeywordCounts


class HypothesisError(ValueError):
    """Hypotheses that cannot be used: names file, line, what was found, and how to mend it."""


class LineError(HypothesisError):
    """A line that cannot be read.

    Args:
        field: the field at fault.
        problem: what was expected and what was found.
        where: "file, line 3", once it is known.

    Example:
        >>> print(LineError("seconds", "is missing").at("h.jsonl, line 3"))
        h.jsonl, line 3, field `seconds`: is missing; `audiorl predict` writes such lines
    """

    def __init__(self, field: str, problem: str, where: str = "") -> None:
        place = f"{where}, " if where else ""
        super().__init__(f"{place}field `{field}`: {problem}; `audiorl predict` writes such lines")
        self.field = field
        self.problem = problem

    def at(self, where: str) -> LineError:
        """The same, with the place of the line: "file, line 3"."""
        return LineError(self.field, self.problem, where)


@dataclass(frozen=True)
class SpeechSample:
    """What judges made of a synthesised sample.

    Args:
        cer: character error rate of the judge's transcript against the text; None where the judge failed.
        similarity: cosine between the speaker embeddings of sample and prompt, -1 to 1; None where there is no prompt,
            or where the encoder failed.
        duration_s: length of the sample, in seconds.
    """

    cer: float | None
    similarity: float | None
    duration_s: float


@dataclass(frozen=True)
class Sample:
    """One decoded hypothesis of one row.

    Args:
        text: decoded text, not normalised; of a model that speaks, the judge's transcript.
        decoding: name of its decoding, such as "greedy".
        sample: number among the samples of that decoding.
        log_prob: sum over its tokens (stop token included), in nats, under the distribution that it was drawn from; at
            temperature 1 where it is greedy.
        num_tokens: its tokens, stop token included.
        finished: False where the length cap cut it.
        errors: against the reference, in the unit of the row's language.
        rules: names of the hallucination rules that fired.
        keywords: occurrences of the row's and the command's keywords.
        speech: of a model that speaks.
        biased: those of ``errors`` in the words of the keywords (`biased_errors`); None where there are no keywords.
    """

    text: str
    decoding: str
    sample: int
    log_prob: float
    num_tokens: int
    finished: bool
    errors: ErrorCounts
    rules: tuple[str, ...]
    keywords: KeywordCounts
    speech: SpeechSample | None = None
    biased: ErrorCounts | None = None


@dataclass(frozen=True)
class Predicted:
    """One manifest row, decoded by one model under all decodings: one line of a file.

    Args:
        id: of the row.
        model: the name it was given.
        reference: the row's text when it was decoded.
        fingerprint: `row_fingerprint` of the row when it was decoded.
        samples: decoding by decoding, in the order of their numbers.
        seconds: of wall clock; a batch's seconds are shared out to its rows by their duration.
        reference_logprob: log-probability of the reference with its stop token, in nats, at temperature 1; None where
            it was not measured, or the model has no tokens for it.

    Example of a line; ``errors`` are hits, substitutions, deletions, insertions, ``keywords`` are matched, in the
    reference, in the hypothesis::

        {"id": "a", "model": "base", "reference": "one two", "fingerprint": "5d0c1e6a3f0b9d27", "seconds": 0.1312,
         "samples": [{"decoding": "greedy", "sample": 0, "text": "one two two", "log_prob": -1.25, "num_tokens": 4,
                      "finished": true, "errors": [2, 0, 0, 1], "rules": [], "keywords": [0, 0, 0]}]}

    A sample of a model that speaks has also ``"speech": {"cer": 0.25, "similarity": 0.81, "duration_s": 1.24}``, with
    null where a judge failed; one of a row with keywords has ``"biased": [1, 0, 0, 0]``, counts as in ``errors``. A
    line has ``"reference_logprob": -1.25`` where that was measured.
    """

    id: str
    model: str
    reference: str
    fingerprint: str
    samples: tuple[Sample, ...]
    seconds: float
    reference_logprob: float | None = None


def to_line(predicted: Predicted) -> str:
    """One line of JSON, without its end; `HypothesisFiles` and `read_hypotheses` read it back the same.

    Example:
        >>> line = to_line(Predicted("a", "base", "one two", "5d0c1e6a3f0b9d27", samples=(), seconds=0.5))
        >>> parse_line(line).reference
        'one two'
    """
    # The id stands first: readers that only look for a row's line need not parse the rest.
    fields: dict[str, Any] = {
        "id": predicted.id,
        "model": predicted.model,
        "reference": predicted.reference,
        "fingerprint": predicted.fingerprint,
        "seconds": predicted.seconds,
    }
    if predicted.reference_logprob is not None:
        fields["reference_logprob"] = predicted.reference_logprob
    fields["samples"] = [_sample_to_json(sample) for sample in predicted.samples]
    return json.dumps(fields, ensure_ascii=False)


def _sample_to_json(sample: Sample) -> dict[str, Any]:
    # Counts are lists: their names on every sample would be most of the file.
    errors = sample.errors
    keywords = sample.keywords

    fields: dict[str, Any] = {
        "decoding": sample.decoding,
        "sample": sample.sample,
        "text": sample.text,
        "log_prob": sample.log_prob,
        "num_tokens": sample.num_tokens,
        "finished": sample.finished,
        "errors": [errors.hits, errors.substitutions, errors.deletions, errors.insertions],
        "rules": list(sample.rules),
        "keywords": [keywords.matched, keywords.in_reference, keywords.in_hypothesis],
    }

    if sample.speech is not None:
        fields["speech"] = asdict(sample.speech)
    biased = sample.biased
    if biased is not None:
        fields["biased"] = [biased.hits, biased.substitutions, biased.deletions, biased.insertions]
    return fields


#: Fields of a line and of a sample, and what JSON must hold there.
_LINE = {
    "id": str,
    "model": str,
    "reference": str,
    "fingerprint": str,
    "seconds": float,
    "samples": list,
}
_REFERENCE: dict[str, type] = {"reference_logprob": float}
_SAMPLE = {
    "decoding": str,
    "sample": int,
    "text": str,
    "log_prob": float,
    "num_tokens": int,
    "finished": bool,
    "errors": list,
    "rules": list,
    "keywords": list,
}
_EXPECTED = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
}


def _checked(values: Any, kinds: dict[str, type], place: str) -> dict[str, Any]:
    """``values`` itself, an object that has all the fields of ``kinds``."""
    if type(values) is not dict:
        raise LineError(place or "(whole line)", f"expected an object {{...}}, got {show(values)}")
    for name, kind in kinds.items():
        value = values.get(name)
        if type(value) is not kind and not (kind is float and type(value) is int):
            found = f"got {show(value)}" if name in values else "it is missing"
            raise LineError(f"{place}.{name}".lstrip("."), f"expected {_EXPECTED[kind]}, {found}")
    return values


def _items(values: list[Any], kinds: list[type], expected: str, place: str) -> list[Any]:
    """``values`` itself, a list of these kinds."""
    if [type(value) for value in values] != kinds:
        raise LineError(place, f"expected a list of {expected}, got {show(values)}")
    return values


# Counts of a few words are the same ones over and over.
_error_counts = lru_cache(maxsize=2**13)(ErrorCounts)
_keyword_counts = lru_cache(maxsize=2**10)(KeywordCounts)


class _SpeechFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``speech`` of a sample, as `to_line` writes it."""

    cer: float | None
    similarity: float | None
    duration_s: float


class _SampleFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One of ``samples``, as `to_line` writes it."""

    decoding: str
    sample: int
    text: str
    log_prob: float
    num_tokens: int
    finished: bool
    errors: tuple[int, int, int, int]
    rules: tuple[str, ...]
    keywords: tuple[int, int, int]
    speech: _SpeechFields | None = None
    biased: tuple[int, int, int, int] | None = None


class _LineFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line, as `to_line` writes it."""

    id: str
    model: str
    reference: str
    fingerprint: str
    seconds: float
    samples: list[_SampleFields]
    reference_logprob: float | None = None


_LINE_DECODER = msgspec.json.Decoder(_LineFields)
# Strings of a line, its names among them: without samples, of one sample, of its speech.
_LINE_STRINGS = 6 + 4
_SAMPLE_STRINGS = 9 + 2
_SPEECH_STRINGS = 1 + 3


def _plain_line(line: bytes) -> Predicted | None:
    """A line with just the fields that `to_line` writes, each once; None of any other line, good or bad."""
    try:
        fields = _LINE_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

    num_strings = _LINE_STRINGS + _SAMPLE_STRINGS * len(fields.samples)
    num_strings += fields.reference_logprob is not None

    samples = []
    for one in fields.samples:
        num_strings += len(one.rules)
        num_strings += one.biased is not None
        speech = None
        if one.speech is not None:
            num_strings += _SPEECH_STRINGS
            speech = SpeechSample(one.speech.cer, one.speech.similarity, one.speech.duration_s)

        # All fields of a sample, as `filled` wants them.
        sample = {
            "text": one.text,
            "decoding": one.decoding,
            "sample": one.sample,
            "log_prob": one.log_prob,
            "num_tokens": one.num_tokens,
            "finished": one.finished,
            "errors": _error_counts(*one.errors),
            "rules": one.rules,
            "keywords": _keyword_counts(*one.keywords),
            "speech": speech,
            "biased": None if one.biased is None else _error_counts(*one.biased),
        }
        samples.append(filled(Sample, sample))

    # msgspec takes the last of two fields of one name: the line then holds more strings than its object.
    if num_quotes(line) != 2 * num_strings:
        return None
    return Predicted(
        id=fields.id,
        model=fields.model,
        reference=fields.reference,
        fingerprint=fields.fingerprint,
        samples=tuple(samples),
        seconds=fields.seconds,
        reference_logprob=fields.reference_logprob,
    )


def _checked_sample(values: Any, number: int) -> Sample:
    """Any sample that is right; LineError says what is wrong with another."""
    place = f"samples[{number}]"
    fields = _checked(values, _SAMPLE, place)
    errors = _items(fields["errors"], [int] * 4, "4 whole numbers", f"{place}.errors")
    num_rules = len(fields["rules"])
    rules = _items(fields["rules"], [str] * num_rules, "strings", f"{place}.rules")
    keywords = _items(fields["keywords"], [int] * 3, "3 whole numbers", f"{place}.keywords")

    speech = fields.get("speech")
    biased = fields.get("biased")
    return Sample(
        text=fields["text"],
        decoding=fields["decoding"],
        sample=fields["sample"],
        log_prob=_number(fields["log_prob"], f"{place}.log_prob"),
        num_tokens=fields["num_tokens"],
        finished=fields["finished"],
        errors=ErrorCounts(*errors),
        rules=tuple(rules),
        keywords=KeywordCounts(*keywords),
        speech=None if speech is None else _speech(speech, f"{place}.speech"),
        biased=None if biased is None else _biased(biased, f"{place}.biased"),
    )


def _biased(values: Any, place: str) -> ErrorCounts:
    counts = values if isinstance(values, list) else [values]
    return ErrorCounts(*_items(counts, [int] * 4, "4 whole numbers", place))


def _speech(values: Any, place: str) -> SpeechSample:
    """``cer`` and ``similarity`` may be null, but not left out."""
    given = values if isinstance(values, dict) else {}
    nulls = {name for name in ("cer", "similarity") if given.get(name, 0) is None}
    numbers = [name for name in ("cer", "similarity", "duration_s") if name not in nulls]

    fields = _checked(values, dict.fromkeys(numbers, float), place)
    for name in numbers:
        if not math.isfinite(_number(fields[name], f"{place}.{name}")):
            raise LineError(
                f"{place}.{name}", f"expected a finite number or null, got {show(fields[name])}"
            )

    return SpeechSample(
        cer=None if "cer" in nulls else float(fields["cer"]),
        similarity=None if "similarity" in nulls else float(fields["similarity"]),
        duration_s=float(fields["duration_s"]),
    )


def parse_line(line: bytes | str) -> Predicted:
    """One line as `to_line` wrote it.

    Raises:
        LineError: naming the field and what is wrong with it.
    """
    if isinstance(line, str):
        line = line.encode("utf-8", "surrogatepass")
    # Nearly all lines; of others is said what is wrong with them.
    plain = _plain_line(line)
    if plain is not None:
        return plain

    try:
        # A model may have written what no manifest may hold.
        values = read_object(line, any_text=True)
    except JsonLineError as error:
        raise LineError(error.field, error.problem) from error

    fields = _checked(values, _LINE, "")
    log_prob = fields.get("reference_logprob")
    if log_prob is not None:
        log_prob = _number(
            _checked(fields, _REFERENCE, "")["reference_logprob"], "reference_logprob"
        )
    return Predicted(
        id=fields["id"],
        model=fields["model"],
        reference=fields["reference"],
        fingerprint=fields["fingerprint"],
        samples=tuple(map(_checked_sample, fields["samples"], count())),
        seconds=_number(fields["seconds"], "seconds"),
        reference_logprob=log_prob,
    )


def _number(value: float, place: str) -> float:
    """A float; whole numbers may be too large for one."""
    try:
        return float(value)
    except OverflowError as error:
        raise LineError(place, "is a number of hundreds of digits") from error


def open_lines(path: str | Path) -> BinaryIO:
    """A file of hypotheses, open for reading.

    Raises:
        FileNotFoundError: no such file.
    """
    if Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such file of hypotheses, it is a folder")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such file of hypotheses; `audiorl predict` writes it from a manifest"
        )
    return Path(path).open("rb")


def read_hypotheses(path: str | Path) -> Iterator[Predicted]:
    """Every line of a file, in order; blank lines are passed over.

    Raises:
        FileNotFoundError: no such file.
        HypothesisError: naming file, line and field.
    """
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield parse_line(line)
                except LineError as error:
                    raise error.at(f"{path}, line {number}") from error
