"""``audiorl calibrate``: how far judges of speech, and the likelihood of a Token2Text, can be trusted on any rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.report import plain
from lightning_audiorl.checks import check_number
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.commands.ears import Ear, Heard, ear_calibrations, ears_text, heard_clips
from lightning_audiorl.data.datamodules.tts import TtsDataModule, speech_source
from lightning_audiorl.data.manifest.source import PickedRows, RowSource
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.judges.base import AsrJudge, Judge
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.models.policy import Policy, SampleKey, require_speech_policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.rewards.differentiable import DifferentiableMix
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers
from lightning_audiorl.token2text import Calibration, calibration
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Speech

#: Kinds of speech, as they stand in the written file.
RECORDINGS = "recordings through the codec"
SAMPLES = "samples of the policy"


def calibrate(
    rows: RowSource | str,
    out: str,
    token2text: str | None = None,
    judge: AsrJudge | None = None,
    ears: dict[str, Judge] | None = None,
    policy: Policy | None = None,
    codec: Codec | None = None,
    decoding: Decoding | None = None,
    num_samples: int = 1,
    limit_rows: int | None = None,
    num_quantiles: int = 4,
    prompt_s: tuple[float, float] = (0.3, 30.0),
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
    normalisers: dict[str, Normaliser] | None = None,
    max_error: float = 0.3,
    sample_rate_hz: int = 16000,
) -> None:
    """Measure what judges of speech are worth, or compare a Token2Text with a judge of waveforms, and write a table.

    Ears are calibrated on the recordings of the rows: what they say of these, of the same through the codec, of white
    noise as long and as loud, and of the wrong text or voice. A judge whose numbers for recordings and noise are alike
    hears nothing.

    A Token2Text is compared with a judge, on recordings and on a policy's samples. A rank correlation of -1 is perfect:
    the higher the likelihood, the fewer errors the judge hears.

    Args:
        rows: class path of rows, or the path of a `SpeechManifest`. Those with a recording of their text are also
            judged as recordings.
        out: JSON file; the table is written beside it as ``.md``, and printed.
        token2text: folder of a trained Token2Text; wants a judge.
        judge: of the waveforms, beside Token2Text; one that rewards nothing.
        ears: judges, speaker encoders and predictors of quality to calibrate, by name.
        policy: that DiffRO is to train; its samples are what the correlation matters for. None leaves them out.
        codec: of Token2Text, where there is no policy, which has its own.
        decoding: of the policy; default temperature 1.
        num_samples: of the policy for each row.
        limit_rows: only the first so many rows.
        num_quantiles: parts of the table, by likelihood.
        prompt_s: (shortest, longest) speaker prompt, in seconds; one outside is an error.
        batch_size: rows at once.
        seed: keys every draw, with row and sample.
        device: where everything runs, such as "cuda".
        normalisers: of the ears' error rates, by language code, in place of the built-in table.
        max_error: an ear that errs on more of the characters of natural speech than this share is warned of.
        sample_rate_hz: at which ears hear the recordings, where there is no codec.

    Raises:
        ValueError: where Token2Text reads other codes, or does not know a text; where there is nothing to judge.
    """
    if (token2text is None) != (judge is None) or (token2text is None and not ears):
        raise ValueError(
            "calibrate: give token2text with a judge, or ears, or all three; got "
            f"token2text {token2text!r}, {'no' if judge is None else 'a'} judge and {len(ears or {})} ears"
        )
    check_number("calibrate.max_error", max_error, at_least=0)
    normalisers = checked_normalisers(normalisers)
    source = speech_source(rows)
    if limit_rows is not None and limit_rows < len(source):
        source = PickedRows(source, range(limit_rows))
    if not len(source) or min(num_samples, batch_size, num_quantiles) < 1:
        raise ValueError(
            "calibrate: want one row or more, and num_samples, batch_size and num_quantiles >= 1; got "
            f"{len(source)} rows, {num_samples}, {batch_size}, {num_quantiles}"
        )

    settings: dict[str, object] = {"num_rows": len(source), "seed": seed}
    written: dict[str, object] = {}
    texts: list[str] = []
    if token2text is not None and judge is not None:
        decoding = decoding or Decoding(temperature=1.0)

        found = calibrations(
            DifferentiableMix(token2text),
            judge,
            source,
            policy,
            codec,
            decoding=decoding,
            num_samples=num_samples,
            num_quantiles=num_quantiles,
            prompt_s=prompt_s,
            batch_size=batch_size,
            seed=seed,
            device=device,
        )

        settings = {"token2text": token2text, "judge": judge.name} | settings
        if policy is not None:
            settings |= {"decoding": asdict(decoding), "num_samples": num_samples}
        written["speech"] = {name: asdict(one) for name, one in found.items()}
        title = f"{token2text} beside the judge {judge.name}, {len(source)} rows"
        texts.append(calibration_text(found, title))

    if ears:
        codec = codec or _codec_of(policy)
        if codec is not None:
            codec.to(device)

        clips = heard_clips(
            source,
            codec,
            sample_rate_hz=sample_rate_hz,
            prompt_s=prompt_s,
            batch_size=batch_size,
            normalisers=normalisers,
            seed=seed,
        )

        # Each judge is asked about all clips of a kind together.
        of_ears = _of_ears(ears, clips, normalisers, max_error, device)
        settings |= {"max_error": max_error}
        written["ears"] = of_ears
        texts.append(ears_text(of_ears, f"{len(of_ears)} ears, {len(clips.recordings)} recordings"))
    _write(Path(out), {"settings": settings} | written, "\n".join(texts))


def _codec_of(policy: Policy | None) -> Codec | None:
    return None if policy is None else require_speech_policy(policy, "calibrate").codec


def _of_ears(
    ears: Mapping[str, Judge],
    clips: Heard,
    normalisers: Mapping[str, Normaliser],
    max_error: float,
    device: str,
) -> dict[str, Ear]:
    """`ear_calibrations` of judges by the names that they have here."""
    members = JudgePanel(ears).judges
    for ear in members.values():
        ear.to(device)
    return ear_calibrations(members, clips, normalisers, max_error)


def _write(path: Path, written: Mapping[str, object], text: str) -> None:
    """Write the JSON file and the table beside it, and print the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(dict(written)), indent=1, allow_nan=False) + "\n")
    path.with_suffix(".md").write_text(text)
    print(f"{text}\n{path}")


def calibrations(
    mix: DifferentiableMix,
    judge: AsrJudge,
    rows: RowSource,
    policy: Policy | None = None,
    codec: Codec | None = None,
    *,
    decoding: Decoding,
    num_samples: int = 1,
    num_quantiles: int = 4,
    prompt_s: tuple[float, float] = (0.3, 30.0),
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Calibration]:
    """What `calibrate` writes, by kind of speech: `RECORDINGS` where rows have any, `SAMPLES` of a policy.

    See `calibrate` for the arguments and errors.
    """
    codec = _codec(policy, codec)
    mix.check_codec(codec.cardinality, content_hash(codec))
    for module in (mix.network, judge, policy or codec):
        module.to(device)

    key = SampleKey(seed, 0, "validation")
    recorded: list[Hypothesis] = []
    sampled: list[Hypothesis] = []
    data = TtsDataModule(prompt_s, sample_rate_hz=codec.sample_rate_hz)
    for first in range(0, len(rows), batch_size):
        last = min(first + batch_size, len(rows))
        batch = data.load([rows[i] for i in range(first, last)]).to(device)

        # Texts that the network cannot read end the run here, not after all samples are made.
        mix.check(batch.rows)
        recorded += recordings(codec, batch)
        if policy is not None:
            sampled += _samples(policy, batch, num_samples, decoding, key)

    kinds = {RECORDINGS: recorded, SAMPLES: sampled}
    if not any(kinds.values()):
        raise ValueError(
            "calibrate: no row has a recording of its text, and there is no policy to speak it; give rows with one "
            "('target' in the manifest), or a policy"
        )
    return {
        name: calibration(mix.network, hypotheses_of_kind, judge, num_quantiles)
        for name, hypotheses_of_kind in kinds.items()
        if hypotheses_of_kind
    }


def _codec(policy: Policy | None, codec: Codec | None) -> Codec:
    """The codec that was given, or the policy's own; one of the two, not both."""
    if policy is not None and codec is None:
        return require_speech_policy(policy, "calibrate").codec
    if policy is None and codec is not None:
        return codec
    raise ValueError("calibrate: give a policy, which has a codec, or a codec alone for recordings")


def recordings(codec: Codec, batch: PromptBatch) -> Iterator[Hypothesis]:
    """The recordings of a batch's texts, encoded and decoded again; no code where a row has none."""
    if batch.target_waveform is None or batch.target_num_samples is None:
        return

    codes, lengths = codec.encode(batch.target_waveform, batch.target_num_samples)
    waveform, num_samples = codec.decode(codes, lengths)
    codes = codes.cpu()
    waveform = waveform.cpu()

    for b, row in enumerate(batch.rows):
        num_codes = int(lengths[b])
        speech = Speech(
            waveform[b, : int(num_samples[b])],
            codec.output_sample_rate_hz,
            codes[b, :num_codes],
        )
        yield Hypothesis(row, "", num_codes, finished=True, speech=speech)


def _samples(
    policy: Policy, batch: PromptBatch, num_samples: int, decoding: Decoding, key: SampleKey
) -> Iterator[Hypothesis]:
    """``num_samples`` of the policy for each row, as rewards and metrics see them."""
    with policy.evaluating(), torch.no_grad():
        context = policy.encode(batch)
        rollout = policy.sample(context, num_samples, decoding, key)
        for group in hypotheses(policy, batch, rollout, context):
            yield from group


def calibration_text(found: Mapping[str, Calibration], title: str) -> str:
    """Markdown: rank correlations and error rates of each kind of speech, then its quantiles."""
    header = [
        "speech",
        "samples",
        "rank correlation, decoder",
        "CTC",
        "CER % by the judge",
        "by the decoder",
        "by CTC",
    ]

    lines = []
    for name, one in found.items():
        ranks = [f"{one.spearman[form]:.2f}" for form in ("decoder", "ctc")]
        rates = [f"{100 * one.cer[who]:.1f}" for who in ("judge", "decoder", "ctc")]
        lines.append([name, str(one.num_samples), *ranks, *rates])

    paragraphs = [f"# {title}", markdown_table(header, lines)]
    for name, one in found.items():
        paragraphs += [f"## {name}", one.table()]
    return "\n\n".join(paragraphs) + "\n"
