"""A codec small enough to train on a CPU in a minute: mel spectrogram -> one code per frame -> mel -> Griffin-Lim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import griffinlim, melscale_fbanks

from lightning_audiorl.codecs.base import Codec, CodecError, SpeakerCondition
from lightning_audiorl.ops.randomness import key_to_seed
from lightning_audiorl.weights.families import first_line, what_it_is
from lightning_audiorl.weights.own import load_own, read_own_config, save_own

#: log-mel values of speech lie about here; the networks see them with mean 0 and variance 1.
_MEAN = -7.5
_STD = 2.5
_FLOOR = 1e-5
#: Standard deviation of what the quantiser reads, over the frames of a batch. It is about that of a logistic
#: distribution, which uses all levels alike; without it training falls into a few codes.
_SPREAD = 1.7


@dataclass(frozen=True)
class TinyCodecConfig:
    """Sizes of a `TinyCodec`; the same seed gives the same starting weights.

    Args:
        sample_rate_hz: of the waveform, in and out.
        frame_rate_hz: codes per second; a code covers an even number of the 100 mel frames per second: 50, 25, 12.5.
        levels: of the finite scalar quantiser; their product is the number of codes.
        num_mels: bands of the spectrogram.
        n_fft: samples of a spectrogram window.
        width: channels of the convolutions.
        layers: residual blocks of encoder and of decoder.
        iterations: of Griffin-Lim.
        seed: keys the starting weights.

    Example:
        >>> config = TinyCodecConfig(sample_rate_hz=8000, frame_rate_hz=25.0)
        >>> config.hop, config.frames
        (80, 4)
    """

    sample_rate_hz: int = 16000
    frame_rate_hz: float = 25.0
    levels: tuple[int, ...] = (8, 8, 8)
    num_mels: int = 64
    n_fft: int = 512
    width: int = 128
    layers: int = 3
    iterations: int = 32
    seed: int = 0

    @property
    def hop(self) -> int:
        """Samples between mel frames: 10 ms."""
        return self.sample_rate_hz // 100

    @property
    def frames(self) -> int:
        """Mel frames of one code.

        Raises:
            CodecError: where that is no even number, or a mel frame no whole number of samples.
        """
        frames = 100 / self.frame_rate_hz
        if frames % 2 or self.sample_rate_hz % 100:
            raise CodecError(
                "TinyCodecConfig: want a frame_rate_hz of 50, 25 or 12.5 (an even number of 10 ms mel frames) and a "
                f"sample_rate_hz in hundreds; got {self.frame_rate_hz} and {self.sample_rate_hz}"
            )
        return int(frames)


def quantise(hidden: Tensor, levels: Tensor) -> Tensor:
    """Finite scalar quantisation (arXiv 2309.15505): each channel to one of its levels, gradients straight through.

    Args:
        hidden: [..., C] any real values.
        levels: [C].

    Returns:
        [..., C] whole numbers from 0 to ``levels - 1``; their gradient is that of the unrounded values.

    Example:
        >>> quantise(torch.tensor([-9.0, 0.1, 9.0]), torch.tensor([8.0, 8.0, 8.0]))
        tensor([0., 4., 7.])
    """
    bounded = torch.sigmoid(hidden) * (levels - 1)
    return bounded + (bounded.round() - bounded).detach()


def digits_to_codes(digits: Tensor, levels: Tensor) -> Tensor:
    """[..., C] digits -> [...] int64 codes, the first digit counting least.

    Example:
        >>> digits_to_codes(torch.tensor([1.0, 2.0]), torch.tensor([8.0, 8.0]))
        tensor(17)
    """
    return (digits.long() * _places(levels)).sum(-1)


def codes_to_digits(codes: Tensor, levels: Tensor) -> Tensor:
    """[...] codes -> [..., C] digits; undoes `digits_to_codes`.

    Example:
        >>> codes_to_digits(torch.tensor(17), torch.tensor([8.0, 8.0]))
        tensor([1, 2])
    """
    return codes[..., None] // _places(levels) % levels.long()


def _places(levels: Tensor) -> Tensor:
    """[C] int64: what each digit counts, the product of the levels before it."""
    before = torch.cat([levels.new_ones(1), levels[:-1]])
    return torch.cumprod(before, 0).long()


class _Block(nn.Module):
    """A residual convolution over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Conv1d(width, width, 5, padding=2)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, W, T] -> [B, W, T]."""
        normal = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        return hidden + self.out(F.gelu(self.wide(normal)))


class TinyCodec(Codec):
    """Log-mel frames of 10 ms, a strided convolutional encoder, finite scalar quantisation, and the way back.

    Without training it is random: `CodecTraining` trains one. Griffin-Lim starts from phase 0, so that a row's waveform
    depends on its codes alone.

    Args:
        init_from: a folder that `save` wrote, or sizes for random weights.

    Raises:
        FileNotFoundError: for a folder without config.json or model.safetensors.
        CodecError: for a folder of another codec, or sizes that do not fit each other.

    Example:
        >>> codec = TinyCodec(TinyCodecConfig(sample_rate_hz=8000, width=8, layers=1, iterations=1))
        >>> codec.cardinality, codec.samples_per_code
        (512, 320)
        >>> codes, lengths = codec.encode(torch.zeros(1, 1000), torch.tensor([1000]))
        >>> codes.shape, lengths
        (torch.Size([1, 4]), tensor([4]))
    """

    def __init__(self, init_from: str | TinyCodecConfig = TinyCodecConfig()) -> None:
        config = read_config(init_from) if isinstance(init_from, str) else init_from
        super().__init__(config.sample_rate_hz, config.frame_rate_hz, prod(config.levels))
        self.config = config

        # Encoder and decoder mirror each other: one strided convolution in, one out, overlapping by half a code.
        width = config.width
        frames = config.frames
        window = 2 * frames
        with _seeded(config.seed):
            self.enter = nn.Conv1d(config.num_mels, width, window, frames, padding=frames // 2)
            self.encoder = nn.Sequential(*(_Block(width) for _ in range(config.layers)))
            self.to_digits = nn.Linear(width, len(config.levels))
            self.spread = nn.BatchNorm1d(len(config.levels), affine=False)

            self.from_digits = nn.Conv1d(len(config.levels), width, 1)
            self.decoder = nn.Sequential(*(_Block(width) for _ in range(config.layers)))
            self.leave = nn.ConvTranspose1d(
                width, config.num_mels, window, frames, padding=frames // 2
            )

        # The mel filters, and their pseudo-inverse for the way back.
        filters = melscale_fbanks(
            config.n_fft // 2 + 1,
            0.0,
            config.sample_rate_hz / 2,
            config.num_mels,
            config.sample_rate_hz,
            norm="slaney",
            mel_scale="slaney",
        )

        # Made from the sizes, so not saved.
        self.levels: Tensor
        self.window: Tensor
        self.filters: Tensor
        self.unfilter: Tensor
        self.register_buffer(
            "levels", torch.tensor(config.levels, dtype=torch.float32), persistent=False
        )
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("unfilter", torch.linalg.pinv(filters), persistent=False)

        if isinstance(init_from, str):
            load_own(self, init_from)
        self.freeze()

    def save(self, folder: str) -> None:
        """Write ``config.json`` and ``model.safetensors``, which ``TinyCodec(folder)`` reads."""
        save_own(self, folder, {"codec": "TinyCodec", **asdict(self.config)})

    # --- the pieces, differentiable; rows of a batch are of one length here

    def mels(self, waveform: Tensor) -> Tensor:
        """[B, S] -> normalised log-mel [B, M, F]; silence fills up the last code."""
        samples = waveform.shape[1]
        missing = -samples % self.samples_per_code

        # Zeros at both edges, not torch's reflection: a frame then depends on nothing beyond its clip.
        edge = self.config.n_fft // 2
        padded = F.pad(waveform, (edge, edge + missing))
        spectrum = torch.stft(
            padded,
            self.config.n_fft,
            self.config.hop,
            window=self.window,
            center=False,
            return_complex=True,
        )
        num_frames = (samples + missing) // self.config.hop
        magnitudes = spectrum.abs()[..., :num_frames]
        mel = torch.einsum("bft,fm->bmt", magnitudes, self.filters)
        return (mel.clamp(min=_FLOOR).log() - _MEAN) / _STD

    def digits(self, mel: Tensor) -> Tensor:
        """Normalised log-mel [B, M, F] -> [B, T, C] whole numbers below the levels, gradients straight through."""
        encoded = self.encoder(self.enter(mel))
        hidden = self.to_digits(encoded.transpose(1, 2)).float()
        spread = self.spread(hidden.flatten(0, 1)).view_as(hidden)
        return quantise(_SPREAD * spread, self.levels)

    def mels_of(self, digits: Tensor) -> Tensor:
        """[B, T, C] digits -> normalised log-mel [B, M, F]."""
        # Whole numbers to the range -1 to 1.
        scaled = 2 * digits / (self.levels - 1) - 1
        hidden = self.from_digits(scaled.transpose(1, 2))
        return self.leave(self.decoder(hidden)).float()

    def waveforms_of(self, mel: Tensor) -> Tensor:
        """Normalised log-mel [B, M, F] -> [B, S] by Griffin-Lim from phase 0."""
        config = self.config
        power = (mel * _STD + _MEAN).exp()
        magnitudes = torch.einsum("bmt,mf->bft", power, self.unfilter).clamp(min=0.0)

        # Whole frames of silence around it, cut off again: Griffin-Lim is worst at the edges.
        edge = -(-config.n_fft // config.hop)
        padded = F.pad(magnitudes, (edge, edge))

        waveform = griffinlim(
            padded,
            window=self.window,
            n_fft=config.n_fft,
            hop_length=config.hop,
            win_length=config.n_fft,
            power=1.0,
            n_iter=config.iterations,
            momentum=0.99,
            length=None,
            rand_init=False,
        )

        start = edge * config.hop
        num_samples = mel.shape[2] * config.hop
        return waveform[:, start : start + num_samples]

    # --- Codec: row by row. Griffin-Lim would blow up the last bits in which a batch differs from its rows, and on a
    # CPU it is no faster in a batch.

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        empty = num_samples.new_zeros(0)
        codes = []
        for wave, num in zip(waveform, num_samples.tolist(), strict=True):
            if num:
                digits = self.digits(self.mels(wave[:num][None]))
                codes.append(digits_to_codes(digits, self.levels)[0])
            else:
                codes.append(empty)
        return _pad(codes, empty), self.num_codes(num_samples)

    def _decode(
        self,
        codes: Tensor,
        lengths: Tensor,
        condition: SpeakerCondition | None,
    ) -> tuple[Tensor, Tensor]:
        empty = self.window.new_zeros(0)
        waveforms = []
        for row, num in zip(codes, lengths.tolist(), strict=True):
            if num:
                digits = codes_to_digits(row[:num], self.levels)[None].float()
                waveforms.append(self.waveforms_of(self.mels_of(digits))[0])
            else:
                waveforms.append(empty)
        return _pad(waveforms, empty), lengths * self.output_samples_per_code


def _pad(rows: list[Tensor], empty: Tensor) -> Tensor:
    """[B, longest] rows, zeros behind their ends; [0, 0] for no rows."""
    if not rows:
        return empty[None, :].expand(0, 0)
    return pad_sequence(rows, batch_first=True)


def read_config(folder: str) -> TinyCodecConfig:
    """The sizes in a `TinyCodec` folder.

    Raises:
        FileNotFoundError: for a folder without config.json or model.safetensors.
        CodecError: for the folder of another model.
    """
    values = read_own_config(
        folder, "TinyCodec: {folder} has no {name}; give a folder that CodecTraining wrote"
    )
    found = what_it_is(values)
    known = {field.name for field in fields(TinyCodecConfig)}
    if values.pop("codec", None) != "TinyCodec" or set(values) - known:
        raise CodecError(
            f"TinyCodec: {folder}/config.json is that of another model, {found}; give a folder that CodecTraining wrote"
        )
    try:
        return TinyCodecConfig(**{**values, "levels": tuple(values["levels"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CodecError(
            f"TinyCodec: {folder}/config.json does not hold the sizes of one ({first_line(error)}); copy it again"
        ) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Weights made inside depend on the seed alone; the global random state is as before after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_to_seed("tiny codec", seed))
        yield
