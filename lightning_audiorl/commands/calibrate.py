"""``audiorl calibrate``: how far the likelihood of a Token2Text can be trusted, on any rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.report import plain
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.data.datamodules.tts import TtsDataModule, speech_source
from lightning_audiorl.data.manifest.source import PickedRows, RowSource
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.judges.base import AsrJudge
from lightning_audiorl.models.policy import Policy, SampleKey, require_speech_policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.rewards.differentiable import DifferentiableMix
from lightning_audiorl.token2text import Calibration, calibration
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Speech

#: Kinds of speech, as they stand in the written file.
RECORDINGS = "recordings through the codec"
SAMPLES = "samples of the policy"


def calibrate(
    token2text: str,
    judge: AsrJudge,
    rows: RowSource | str,
    out: str,
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
) -> None:
    """Compare a Token2Text with a judge of waveforms, on recordings and on a policy's samples, and write a table.

    A rank correlation of -1 is perfect: the higher the likelihood, the fewer errors the judge hears.

    Args:
        token2text: folder of a trained Token2Text.
        judge: of the waveforms; one that rewards nothing.
        rows: class path of rows, or the path of a `SpeechManifest`. Those with a recording of their text are also
            judged as recordings.
        out: JSON file; the table is written beside it as ``.md``, and printed.
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

    Raises:
        ValueError: where Token2Text reads other codes, or does not know a text; where there is nothing to judge.
    """
    source = speech_source(rows)
    if limit_rows is not None and limit_rows < len(source):
        source = PickedRows(source, range(limit_rows))
    if not len(source) or min(num_samples, batch_size, num_quantiles) < 1:
        raise ValueError(
            "calibrate: want one row or more, and num_samples, batch_size and num_quantiles >= 1; got "
            f"{len(source)} rows, {num_samples}, {batch_size}, {num_quantiles}"
        )

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

    settings = {
        "token2text": token2text,
        "judge": judge.name,
        "num_rows": len(source),
        "seed": seed,
    }
    if policy is not None:
        settings |= {"decoding": asdict(decoding), "num_samples": num_samples}
    title = f"{token2text} beside the judge {judge.name}, {len(source)} rows"
    _write(Path(out), found, settings, title)


def _write(
    path: Path,
    found: Mapping[str, Calibration],
    settings: Mapping[str, object],
    title: str,
) -> None:
    """Write the JSON file and the table beside it, and print the table."""
    speech = {name: asdict(one) for name, one in found.items()}
    written = plain({"settings": settings, "speech": speech})

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n")
    text = calibration_text(found, title)
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
