"""Token2Text (DiffRO, arXiv 2507.05911): speech codes, hard or relaxed, to the likelihood of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.judges.models.ctc import BLANK, ENGLISH_CHARACTERS, greedy_text
from lightning_audiorl.judges.models.networks import (
    JudgeNetwork,
    frame_mask,
    load_network,
    seeded_weights,
)
from lightning_audiorl.judges.training.ctc import character_ids, frames_needed
from lightning_audiorl.ops.logprobs import scaled_logits
from lightning_audiorl.types import Utterance


@dataclass(frozen=True)
class Encoded:
    """Speech as the network's heads read it.

    Args:
        states: [B, T, width]; 0 behind a row's end.
        lengths: [B] int64, at least 1.
    """

    states: Tensor
    lengths: Tensor


class _GatedConv(nn.Module):
    """Gated dilated convolution with a residual, on [B, T, width]."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        inner = torch.where(keep, self.norm(x), 0.0).transpose(1, 2)
        gated = nn.functional.glu(self.conv(inner), dim=1).transpose(1, 2)
        return x + self.dropout(self.mix(gated))


def sinusoids(num: int, width: int, device: torch.device) -> Tensor:
    """[num, width] positions (arXiv 1706.03762).

    Example:
        >>> sinusoids(1, 4, torch.device("cpu"))
        tensor([[0., 0., 1., 1.]])
    """
    channels = torch.arange(0, width, 2, device=device)
    rates = torch.exp(channels * (-math.log(10000.0) / width))
    angles = torch.arange(num, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Token2Text(JudgeNetwork):
    """Codes of a codec -> characters, by an attention decoder and by CTC; and labels of the whole utterance.

    Everything after `embed` is differentiable in its input: relaxed codes come in as weighted means of embeddings.
    Class ``num_codes`` is the end of speech; a row may end with it or, where a length cap cut it, without.

    Args:
        num_codes: N, the codec's cardinality.
        characters: what it can write.
        labels: classes of each further head by name, such as ``{"speaker": ["george", "lucas"]}``.
        width: of all layers.
        dilations: one gated convolution each; they find the letters, so that CTC learns from the start.
        encoder_layers, decoder_layers: transformer layers behind the convolutions, and of the decoder.
        heads: attention heads.
        max_characters: longest text that it is asked about; no longer one may be.
        ctc_upsample: CTC frames per code. Characters come at up to about 20 per second.
        dropout: in training.
        seed: of the initial weights.
        codec_hash: content hash of the codec whose codes it has learnt; "" where unknown.

    Example:
        >>> network = Token2Text(num_codes=16, characters="abc", width=8, heads=2).eval()
        >>> encoded = network(torch.tensor([[3, 7, 1, 16]]), torch.tensor([4]))
        >>> network.text_log_likelihood(encoded, [[1, 2]]).shape
        torch.Size([1])
    """

    def __init__(
        self,
        num_codes: int,
        characters: str = ENGLISH_CHARACTERS,
        labels: Mapping[str, Sequence[str]] | None = None,
        width: int = 128,
        dilations: Sequence[int] = (1, 2, 4),
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        heads: int = 4,
        max_characters: int = 120,
        ctc_upsample: int = 2,
        dropout: float = 0.1,
        seed: int = 0,
        codec_hash: str = "",
    ) -> None:
        super().__init__()
        labels = {name: list(classes) for name, classes in (labels or {}).items()}
        if (
            min(num_codes, max_characters, ctc_upsample, encoder_layers + 1, decoder_layers) < 1
            or not characters
        ):
            raise ValueError(
                "Token2Text: want characters, and every size at least 1 (encoder_layers at least 0)"
            )
        for name, classes in labels.items():
            if len(classes) < 2 or len(set(classes)) < len(classes):
                raise ValueError(
                    f"Token2Text.labels[{name!r}]: want two or more different classes, got {classes}"
                )

        # What `load` gives back to this constructor.
        self.remember(
            num_codes=num_codes,
            characters=characters,
            labels=labels,
            width=width,
            dilations=list(dilations),
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=heads,
            max_characters=max_characters,
            ctc_upsample=ctc_upsample,
            dropout=dropout,
            seed=seed,
            codec_hash=codec_hash,
        )

        self.num_codes = num_codes
        self.characters = characters
        self.labels = labels
        self.max_characters = max_characters
        self.ctc_upsample = ctc_upsample
        self.codec_hash = codec_hash

        # The order of these layers decides which draws each weight gets.
        layer: dict[str, Any] = {
            "dropout": dropout,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
        }
        with seeded_weights("Token2Text", seed):
            self.embedding = nn.Embedding(num_codes + 1, width)
            self.convs = nn.ModuleList(
                _GatedConv(width, dilation, dropout) for dilation in dilations
            )

            self.encoder = nn.ModuleList(
                nn.TransformerEncoderLayer(width, heads, 2 * width, **layer)
                for _ in range(encoder_layers)
            )
            self.norm = nn.LayerNorm(width)
            self.ctc = nn.Linear(width, ctc_upsample * (1 + len(characters)))

            self.written = nn.Embedding(1 + len(characters), width)
            self.decoder = nn.ModuleList(
                nn.TransformerDecoderLayer(width, heads, 2 * width, **layer)
                for _ in range(decoder_layers)
            )
            self.decoder_norm = nn.LayerNorm(width)
            self.write = nn.Linear(width, 1 + len(characters))

            of_labels = {name: nn.Linear(width, len(classes)) for name, classes in labels.items()}
            self.heads = nn.ModuleDict(of_labels)
        self.dropout = nn.Dropout(dropout)

    @property
    def end(self) -> int:
        """The class that ends speech."""
        return self.num_codes

    @property
    def table(self) -> Tensor:
        """[N + 1, width] embeddings of the codes and of the end."""
        return self.embedding.weight

    def embed(self, codes: Tensor) -> Tensor:
        """[B, T] codes (or `end`) -> [B, T, width]."""
        embedded: Tensor = self.embedding(codes)
        return embedded

    def encode(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """Read speech.

        Args:
            embedded: [B, T, width], from `embed` or relaxed codes; what lies behind a row's end is not read.
            lengths: [B] int64.

        Raises:
            ValueError: for a row of length 0 or above T.
        """
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= embedded.shape[1]:
            raise ValueError(
                f"Token2Text: lengths must be within 1 and {embedded.shape[1]}, got {lengths.tolist()}"
            )

        keep = frame_mask(lengths, embedded.shape[1])
        x = self.dropout(torch.where(keep, embedded, 0.0))
        for conv in self.convs:
            x = conv(x, keep)

        if len(self.encoder):
            x = x + sinusoids(x.shape[1], x.shape[2], x.device)
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=~keep[..., 0])
        return Encoded(torch.where(keep, self.norm(x), 0.0), lengths)

    def forward(self, codes: Tensor, lengths: Tensor) -> Encoded:
        """`encode` of hard codes [B, T]."""
        return self.encode(self.embed(codes), lengths)

    # --- texts

    def targets(self, rows: Sequence[Utterance]) -> list[list[int]]:
        """The rows' normalised texts as character ids, 1 for the first of ``characters``.

        Raises:
            ValueError: for a character that it cannot write, or a text longer than it knows; names the row.
        """
        targets = [character_ids(row, self.characters) for row in rows]
        for row, ids in zip(rows, targets, strict=True):
            if len(ids) > self.max_characters:
                raise ValueError(
                    f"row {row.id!r}: its text has {len(ids)} characters, Token2Text knows texts of up to "
                    f"{self.max_characters}; filter the texts (TextLength), or train a Token2Text on longer ones"
                )
        return targets

    def text_log_likelihood(self, encoded: Encoded, targets: Sequence[Sequence[int]]) -> Tensor:
        """[B] log P(text | speech), each character given those before it, over their number with the end (nats)."""
        given, wanted = _decoder_targets(targets, encoded.states.device)
        log_probs = self._written(encoded, given).log_softmax(-1)
        keep = wanted >= 0
        index = wanted.clamp(min=0).unsqueeze(-1)
        each = log_probs.gather(-1, index).squeeze(-1)
        return torch.where(keep, each, 0.0).sum(-1) / keep.sum(-1)

    def _written(self, encoded: Encoded, given: Tensor) -> Tensor:
        """[B, L] ids, 0 first -> [B, L, 1 + characters] logits of the next id; 0 is the end of the text."""
        length = given.shape[1]
        states = encoded.states
        x = self.dropout(self.written(given))
        x = x + sinusoids(length, states.shape[2], states.device)

        # A character sees those before it, and the speech up to its end.
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        behind = ~frame_mask(encoded.lengths, states.shape[1])[..., 0]

        # Positions of the speech, too: the decoder finds its place in the text by where it attends.
        memory = states + sinusoids(states.shape[1], states.shape[2], states.device)
        for layer in self.decoder:
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=behind)
        return scaled_logits(self.write(self.decoder_norm(x)), 1.0)

    def ctc_log_probs(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """[B, T * ctc_upsample, 1 + characters] log-probs, blank first, and [B] frames."""
        # Each code's state holds the scores of all its frames.
        scores = self.ctc(encoded.states).unflatten(-1, (self.ctc_upsample, -1))
        scores = scores.flatten(1, 2)
        return scaled_logits(scores, 1.0).log_softmax(-1), encoded.lengths * self.ctc_upsample

    def ctc_log_likelihood(self, encoded: Encoded, targets: Sequence[Sequence[int]]) -> Tensor:
        """[B] log P(text | speech) summed over all alignments (CTC), over the number of characters (nats).

        Speech with fewer frames than its text needs has no alignment. Its frames are then repeated, all of them alike,
        until one exists: the likelihood is low, and its gradient that of a low likelihood, neither infinite nor 0.
        """
        log_probs, lengths = self.ctc_log_probs(encoded)

        # How often each frame of a row stands: once, unless the row is too short for its text.
        needed = torch.tensor([frames_needed(ids) for ids in targets], device=lengths.device)
        factor = (-(-needed // lengths)).clamp(min=1)
        longest = int((lengths * factor).max())
        place = torch.arange(longest, device=lengths.device) // factor[:, None]
        place = place.clamp(max=log_probs.shape[1] - 1)
        repeated = log_probs.gather(1, place[..., None].expand(-1, -1, log_probs.shape[2]))

        flat = torch.cat([torch.tensor(ids, dtype=torch.long) for ids in targets]).to(
            log_probs.device
        )
        sizes = torch.tensor([len(ids) for ids in targets], device=log_probs.device)
        loss = nn.functional.ctc_loss(
            repeated.transpose(0, 1), flat, lengths * factor, sizes, BLANK, reduction="none"
        )
        return -loss / sizes.clamp(min=1)

    @torch.no_grad()
    def transcribe(
        self,
        codes: Tensor,
        lengths: Tensor,
        ctc: bool = False,
    ) -> list[str]:
        """Greedy texts of hard codes [B, T], by the attention decoder or by CTC."""
        encoded = self(codes, lengths)
        if ctc:
            log_probs, frames = self.ctc_log_probs(encoded)
            best = log_probs.argmax(-1).tolist()
            paths = [ids[:length] for ids, length in zip(best, frames.tolist(), strict=True)]
            return [greedy_text(path, self.characters) for path in paths]

        # One character at a time, until every row has written the end of its text (0).
        given = codes.new_zeros(len(codes), 1)
        alive = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        while alive.any() and given.shape[1] <= self.max_characters:
            best_next = self._written(encoded, given)[:, -1].argmax(-1)
            following = torch.where(alive, best_next, 0)
            alive = following > 0
            given = torch.cat([given, following[:, None]], dim=1)
        return [self._text(ids) for ids in given.tolist()]

    def _text(self, ids: Sequence[int]) -> str:
        """The characters of ids; 0 is none."""
        return "".join(self.characters[i - 1] for i in ids if i)

    # --- labels

    def head_log_probs(self, head: str, encoded: Encoded) -> Tensor:
        """[B, classes] log-probs of one head, from the mean state of the utterance."""
        # States behind a row's end are 0.
        mean = encoded.states.sum(1) / encoded.lengths[:, None]
        return scaled_logits(self.heads[head](mean), 1.0).log_softmax(-1)

    def head_log_likelihood(
        self,
        head: str,
        encoded: Encoded,
        classes: Tensor,
    ) -> Tensor:
        """[B] log P(class | speech) in nats; ``classes`` [B] int64."""
        log_probs = self.head_log_probs(head, encoded)
        return log_probs.gather(-1, classes[:, None]).squeeze(-1)

    @classmethod
    def load(cls, folder: str) -> Self:
        """The network saved in ``folder``.

        Raises:
            FileNotFoundError: when a file is missing.
            JudgeError: for a folder of another network, or weights that do not fit its config.
        """
        return cast(Self, load_network(folder, (cls,)))


def _decoder_targets(
    targets: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What the decoder reads (0 first) and what it should write (0 last, -1 is padding), [B, L] each."""
    given = [torch.tensor([0, *ids], device=device) for ids in targets]
    wanted = [torch.tensor([*ids, 0], device=device) for ids in targets]
    return pad_sequence(given, batch_first=True), pad_sequence(
        wanted, batch_first=True, padding_value=-1
    )


def with_end(
    codes: Tensor,
    lengths: Tensor,
    end: int,
    which: Tensor,
) -> tuple[Tensor, Tensor]:
    """Append the end of speech to the rows ``which`` [B] bool: [B, T], [B] -> [B, T + 1], [B].

    Example:
        >>> codes = torch.tensor([[5, 6], [7, 0]])
        >>> with_end(codes, torch.tensor([2, 1]), end=9, which=torch.tensor([False, True]))
        (tensor([[5, 6, 0],
                [7, 9, 0]]), tensor([2, 2]))
    """
    longer = nn.functional.pad(codes, (0, 1))
    last = torch.where(which, end, 0)
    longer = longer.scatter(1, lengths[:, None], last[:, None])
    return longer, lengths + which.long()
