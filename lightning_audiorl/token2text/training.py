"""Training of a Token2Text on recordings: a codec turns them into codes, the network reads their texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.codecs.network_training import val_set_name
from lightning_audiorl.judges.training.base import JudgeTraining
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.text.compare import without_sounds
from lightning_audiorl.text.errors import ErrorCounts, count_errors
from lightning_audiorl.text.normalise import normaliser_for
from lightning_audiorl.token2text.labels import class_ids
from lightning_audiorl.token2text.network import Token2Text, with_end
from lightning_audiorl.types import PromptBatch, Utterance


class Token2TextTraining(JudgeTraining):
    """Attention decoder, CTC and heads together, over the recordings of a `TtsDataModule`.

    The network is to be read with sampled and relaxed codes, which recordings are not: some codes are replaced, all
    are mixed with another one, and half of the rows lack their end.

    Logs ``loss`` and its parts, and for every validation set ``val/<set>/cer`` (attention decoder), ``cer_ctc`` and
    ``<head>_accuracy``.

    Args:
        network: what trains.
        codec: whose codes the network learns; frozen, and not saved with it.
        num_steps: batches; the learning rate ends there, and so does the run.
        folder: where the network is written; None is ``token2text`` in the run's folder.
        lr, warmup_steps, clip_norm: of AdamW; see `JudgeTraining`.
        ctc_weight: share of the CTC loss; the attention decoder has the rest.
        head_weight: of each head's loss beside them.
        replaced: share of codes that are replaced by a random one.
        mixed: each other code is up to this share a random one: a point near the corner of the simplex.
        seed: keys dropout and all draws.
    """

    network: Token2Text

    def __init__(
        self,
        network: Token2Text,
        codec: Codec,
        num_steps: int,
        folder: str | None = None,
        lr: float = 2e-3,
        warmup_steps: int = 40,
        clip_norm: float = 1.0,
        ctc_weight: float = 0.5,
        head_weight: float = 0.2,
        replaced: float = 0.05,
        mixed: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network,
            num_steps,
            folder,
            lr,
            warmup_steps,
            codec=codec,
            vocoded_probability=0.0,
            clip_norm=clip_norm,
            seed=seed,
        )

        check_number("Token2TextTraining.head_weight", head_weight)
        if not (0 <= ctc_weight <= 1 and 0 <= replaced < 1 and 0 <= mixed < 1 and head_weight >= 0):
            raise ValueError(
                "Token2TextTraining: want ctc_weight, replaced and mixed within 0 and 1, head_weight >= 0; got "
                f"{ctc_weight}, {replaced}, {mixed}, {head_weight}"
            )
        codec.require_one_codebook()
        if codec.cardinality != network.num_codes:
            raise ValueError(
                f"Token2TextTraining: the codec has {codec.cardinality} codes, the network {network.num_codes}; set "
                "network.init_args.num_codes"
            )

        # Saved with the network: codes of another codec are other sounds.
        network.codec_hash = content_hash(codec)
        network.sizes["codec_hash"] = network.codec_hash

        self.ctc_weight = ctc_weight
        self.head_weight = head_weight
        self.replaced = replaced
        self.mixed = mixed
        self._counts: dict[str, list[ErrorCounts]] = {}
        self._hits: dict[str, list[bool]] = {}

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        super().on_train_start()
        self.folder = self.folder or str(Path(self.trainer.default_root_dir) / "token2text")

    def inputs(self, batch: PromptBatch, augmented: bool = False) -> tuple[Tensor, Tensor]:
        """Codes [B, T] of the batch's recordings and their lengths [B]; half of them without end if ``augmented``.

        Raises:
            ValueError: for a row without a recording, or audio at another rate than the codec's.
        """
        codes, lengths = self._codes(batch)

        # A sample that was cut by its length cap has no end of speech; recordings all have one.
        has_end = torch.ones_like(lengths, dtype=torch.bool)
        if augmented:
            chances = [
                float(torch.rand(1, generator=self._generator("end", row))) for row in batch.rows
            ]
            has_end = torch.tensor(chances, device=lengths.device) < 0.5
        return with_end(codes, lengths, self.network.end, has_end)

    def _codes(self, batch: PromptBatch) -> tuple[Tensor, Tensor]:
        """The recordings through the codec, see `inputs`."""
        if batch.target_waveform is None or batch.target_num_samples is None:
            raise ValueError(
                f"row {batch.ids[0]!r} and its batch: no recordings of their texts; Token2Text learns from a "
                "TtsDataModule whose rows have a 'target'"
            )

        codec = self.codec
        assert codec is not None
        if batch.sample_rate_hz != codec.sample_rate_hz:
            raise ValueError(
                f"the codec wants {codec.sample_rate_hz} Hz audio, got {batch.sample_rate_hz}; set "
                "data.init_args.sample_rate_hz"
            )

        for row, num in zip(batch.rows, batch.target_num_samples.tolist(), strict=True):
            if num == 0:
                raise ValueError(
                    f"row {row.id!r}: no recording of its text ('target'); leave the row out"
                )

        # In float32 whatever the training's precision: a codec's rounding would change codes.
        with torch.autocast(batch.target_waveform.device.type, enabled=False):
            return codec.encode(batch.target_waveform.float(), batch.target_num_samples)

    def _generator(self, purpose: str, row: Utterance) -> torch.Generator:
        return keyed_generator("token2text", purpose, self.seed, self.global_step, row.id)

    def loss(self, codes: Tensor, lengths: Tensor, rows: Sequence[Utterance]) -> Tensor:
        """Mean loss of codes [B, T] with their ends."""
        encoded = self.network.encode(self._disturbed(codes, rows), lengths)
        targets = self.network.targets(rows)

        decoder = -self.network.text_log_likelihood(encoded, targets).mean()
        ctc = -self.network.ctc_log_likelihood(encoded, targets).mean()
        components = {"decoder": decoder, "ctc": ctc}
        loss = (1 - self.ctc_weight) * decoder + self.ctc_weight * ctc

        # Rows without a label of a head count for the others, and for the text.
        for head, classes in self.network.labels.items():
            wanted = torch.tensor(
                class_ids(rows, head, classes, missing_ok=True), device=codes.device
            )
            labelled = wanted >= 0
            each = self.network.head_log_likelihood(head, encoded, wanted.clamp(min=0))
            num_labelled = labelled.sum().clamp(min=1)
            components[head] = -torch.where(labelled, each, 0.0).sum() / num_labelled
            loss = loss + self.head_weight * components[head]

        logged = {f"loss/{name}": component.detach() for name, component in components.items()}
        self.log_dict(logged, batch_size=len(rows))
        return loss

    def _disturbed(self, codes: Tensor, rows: Sequence[Utterance]) -> Tensor:
        """[B, T, width] embeddings; see ``replaced`` and ``mixed``. The end of speech stays as it is."""
        num_codes = codes.shape[1]

        # Keyed by row: what happens to a row does not depend on its batch.
        draws = [torch.rand(num_codes, 3, generator=self._generator("noise", row)) for row in rows]
        chance, size, other = torch.stack(draws).to(codes.device).unbind(-1)

        # How far each embedding goes towards that of a random code: all the way, or a share of it.
        amount = torch.where(chance < self.replaced, 1.0, self.mixed * size)
        amount = amount.masked_fill(codes == self.network.end, 0.0)
        others = self.network.embed((other * self.network.num_codes).long())
        return torch.lerp(self.network.embed(codes), others, amount[..., None])

    def on_validation_epoch_start(self) -> None:
        """Begin the counts."""
        self._counts = {}
        self._hits = {}

    def validation_step(
        self,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the edits of both forms, and the hits of each head."""
        name = val_set_name(self, dataloader_idx)
        codes, lengths = self.inputs(batch)

        for ctc, metric in ((False, "cer"), (True, "cer_ctc")):
            texts = self.network.transcribe(codes, lengths, ctc)
            counts = [
                character_errors(row, text) for row, text in zip(batch.rows, texts, strict=True)
            ]
            self._counts.setdefault(f"{name}/{metric}", []).extend(counts)

        encoded = self.network(codes, lengths)
        for head, classes in self.network.labels.items():
            wanted = class_ids(batch.rows, head, classes, missing_ok=True)
            found = self.network.head_log_probs(head, encoded).argmax(-1).tolist()
            hits = [a == b for a, b in zip(wanted, found, strict=True) if a >= 0]
            self._hits.setdefault(f"{name}/{head}_accuracy", []).extend(hits)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of every set."""
        metrics = {name: sum(counts, ErrorCounts()).rate for name, counts in self._counts.items()}
        metrics |= {name: sum(hits) / len(hits) for name, hits in self._hits.items() if hits}
        self.finish_validation(metrics)


def character_errors(row: Utterance, text: str) -> ErrorCounts:
    """Edits between a row's text and what was read, spaces left out.

    Example:
        >>> character_errors(Utterance("row", (), "one two", 1.0), "onetwoo").errors
        1
    """
    normaliser = normaliser_for(row.lang)
    reference = normaliser.normalise(without_sounds(row.reference)).replace(" ", "")
    hypothesis = normaliser.normalise(text).replace(" ", "")
    return count_errors(reference, hypothesis, "char")
