"""The data on the arrows between the stages: one frozen dataclass each.

Letters: B prompts, G samples of each prompt, T tokens of a completion, S audio samples, V vocabulary.
A group (the G samples of one prompt) is always contiguous: ``[B, G, ...]``, never tiled. Masks are called
``keep``; True means use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from torch import Tensor

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.fields import Batched, Checked, Counts, PerPrompt, Shape, Shared


@dataclass(frozen=True)
class Segment:
    """A stretch of one audio source, one piece of a constructed utterance.

    Example:
        >>> half_a_second = Segment("clip.wav", duration_s=0.5, offset_s=2.0)

    Args:
        audio_filepath: absolute path, or a ``synthetic:`` URI (see ``data/audio/nonspeech.py``).
        duration_s: length in seconds; None reads to the end of the file.
        offset_s: where the stretch begins, in seconds.
        gap_s: silence put before it, in seconds.
    """

    audio_filepath: str
    duration_s: float | None = None
    offset_s: float = 0.0
    gap_s: float = 0.0


class Origin(NamedTuple):
    """Where a row was read, for messages about what is found later.

    Args:
        where: "file, line 3".
        skip: whether it may be left out where its audio turns out to be bad.
    """

    where: str
    skip: bool = False


@dataclass(frozen=True)
class Utterance:
    """One manifest row: what is spoken in a stretch of audio. No audio in it yet.

    Example:
        >>> row = Utterance("clip-1", (Segment("clip.wav"),), text="one two", duration_s=1.2)
        >>> row.lang
        'en'

    Args:
        id: unique within a manifest; keys every random draw made for this row.
        segments: what the audio is joined from; a plain manifest row has exactly one.
        text: reference text; empty for non-speech.
        duration_s: length of the whole in seconds.
        lang: any code or name of `languages`; says the text normaliser and the error unit (word or character).
        speaker: speaker name, or "" when unknown.
        keywords: words of special value in this row (reward R3).
        effects: what is done to the joined audio, in order, such as ``telephone`` (see ``data/audio/effects.py``).
        spoken_text: of speech synthesis: what is to be heard, where ``text`` spells it otherwise, such as in phonemes.
        extra: every other field of the manifest row, kept as it was. ``hotwords`` among them are the words that the
            prompt names, see `hotwords`.
        origin: line of a manifest; None of rows that are made. No part of what a row is: rows of other lines are equal.
    """

    id: str
    segments: tuple[Segment, ...]
    text: str
    duration_s: float
    lang: str = "en"
    speaker: str = ""
    keywords: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    # Not shown: the name of a built mix holds what rows show, and few rows have it.
    spoken_text: str | None = field(default=None, repr=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def reference(self) -> str:
        """What a transcript is compared with: ``spoken_text``, and ``text`` where there is none."""
        return self.text if self.spoken_text is None else self.spoken_text

    @property
    def hotwords(self) -> tuple[str, ...]:
        """Words that the prompt names, said or not; a policy without a place for them refuses the row.

        Raises:
            ValueError: for a field ``hotwords`` that is no list of words, naming the row.

        Example:
            >>> Utterance("a", (), "call anna", 1.0, extra={"hotwords": ["anna", "victor"]}).hotwords
            ('anna', 'victor')
        """
        words = self.extra.get("hotwords", ())
        if isinstance(words, list | tuple) and all(isinstance(word, str) for word in words):
            return tuple(words)
        raise ValueError(
            f"row {self.id!r}, field `hotwords`: expected a list of strings, got {str(words)[:60]!r}"
        )


@dataclass(frozen=True)
class PromptBatch(Batched):
    """Audio and reference text of B prompts.

    In speech synthesis the rows' texts are to be spoken and the audio is that of the speaker prompts (0 samples where a
    row has none).

    Example: two clips of 1.0 s and 0.5 s at 16 kHz.
        >>> import torch
        >>> rows = (Utterance("a", (), "one two", 1.0), Utterance("b", (), "three", 0.5))
        >>> batch = PromptBatch(torch.zeros(2, 16000), torch.tensor([16000, 8000]), 16000, rows)
        >>> batch.texts
        ['one two', 'three']
        >>> batch.select([1]).waveform.shape
        torch.Size([1, 8000])

    Args:
        waveform: [B, S] float32, zeros after a clip's end.
        num_samples: [B] samples of each clip.
        sample_rate_hz: of the waveform.
        rows: B manifest rows; ``rows[i].id`` keys every random draw made for clip i.
        target_waveform, target_num_samples: shaped alike, recordings of the texts where there are any, for supervised
            training of speech synthesis.
        bad_rows: draws that other rows replace, because their audio is bad: how many, by what is wrong.
        comes_again: [B] bool, whether the same audio may come again in this run or another one; None is yes, for all.
    """

    waveform: Annotated[Tensor, Shape("B S", pad="S", lengths="num_samples")]
    num_samples: Annotated[Tensor, Shape("B")]
    sample_rate_hz: Shared[int]
    rows: PerPrompt[tuple[Utterance, ...]]
    target_waveform: Annotated[
        Tensor | None, Shape("B S_target", pad="S_target", lengths="target_num_samples")
    ] = None
    target_num_samples: Annotated[Tensor | None, Shape("B")] = None
    bad_rows: Counts = field(default_factory=dict)
    comes_again: Annotated[Tensor | None, Shape("B", on_host=True)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target_waveform is None) != (self.target_num_samples is None):
            raise ValueError("PromptBatch: target_waveform and target_num_samples come together")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """B ids of the rows."""
        return [row.id for row in self.rows]

    @property
    def texts(self) -> list[str]:
        """B reference texts."""
        return [row.text for row in self.rows]

    @property
    def once(self) -> list[int]:
        """Numbers of the clips that do not come again."""
        if self.comes_again is None:
            return []
        numbers: list[int] = (~self.comes_again).nonzero().squeeze(-1).tolist()
        return numbers


@dataclass(frozen=True)
class Decoding:
    """How continuations are drawn. Training leaves truncation off (top_k 0, top_p 1).

    Example:
        >>> Decoding(temperature=0).cap(duration_s=2.0)  # 16 + 15 * 2
        46
        >>> Decoding(tokens_per_second=4, min_cap=10, max_new_tokens=20).cap(duration_s=2.0)
        18

    Args:
        temperature: 0 is greedy; log-probs are then taken at temperature 1.
        top_k: keep the k most likely tokens (0 = off).
        top_p: keep the smallest set of tokens with this mass (1.0 = off).
        max_new_tokens: hard cap on a completion, stop token included.
        tokens_per_second: length cap in proportion to the audio: ``min_cap + tokens_per_second * seconds``; None is 15
            for a model that writes, twice the codec's frame rate for one that speaks.
        min_cap: constant part of that cap, in tokens.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 448
    tokens_per_second: float | None = None
    min_cap: int = 16

    def __post_init__(self) -> None:
        check_number("Decoding.temperature", self.temperature, at_least=0)
        # Beyond, what logits are divided by is 0 or infinite in float32.
        if self.temperature and not 1e-30 <= self.temperature <= 1e30:
            raise ValueError(
                f"Decoding.temperature: want 0 (greedy) or 1e-30 to 1e30, got {self.temperature!r}"
            )
        check_number("Decoding.top_p", self.top_p, above=0, at_most=1)
        check_count("Decoding.top_k", self.top_k)

        check_count("Decoding.max_new_tokens", self.max_new_tokens, at_least=1)
        check_count("Decoding.min_cap", self.min_cap, at_least=1)
        if self.tokens_per_second is not None:
            check_number("Decoding.tokens_per_second", self.tokens_per_second, at_least=0)

    def cap(self, duration_s: float, usual: float = 15.0) -> int:
        """Most tokens a completion for ``duration_s`` seconds of audio may have, stop token included.

        Args:
            duration_s: of the audio, recorded or to be spoken.
            usual: the ``tokens_per_second`` where none is given.
        """
        per_second = usual if self.tokens_per_second is None else self.tokens_per_second
        by_duration = self.min_cap + int(per_second * duration_s)
        return max(1, min(self.max_new_tokens, by_duration))


#: Of tensors with an entry for each token of each sample; a completion has one token at least.
_PER_TOKEN = Shape("B G T", pad="T", lengths="lengths", least=1)


@dataclass(frozen=True)
class Rollout(Batched):
    """G completions of each of B prompts, without the prompts.

    Example: one prompt, the completions "a stop" and "b c stop", where a, b, c are 1, 2, 3 and stop is 0.
        >>> import torch
        >>> tokens = torch.tensor([[[1, 0, 0], [2, 3, 0]]])
        >>> keep = torch.tensor([[[True, True, False], [True, True, True]]])
        >>> rollout = Rollout(tokens, keep, log_probs=torch.zeros(1, 2, 3), finished=torch.tensor([[True, True]]))
        >>> rollout.lengths
        tensor([[2, 3]])

    Args:
        tokens: [B, G, T] int64; anything valid where ``keep`` is False.
        keep: [B, G, T] bool; a prefix of each row; the stop token counts as kept.
        log_probs: [B, G, T] float32 under the sampling distribution (temperature and support included).
        finished: [B, G] bool; False where the length cap cut the completion.
        support: [B, G, T, K] int64, -1 padded: the tokens that truncation kept at each step; None without truncation.
        following: [B, G, T, C - 1] int64: of a model that speaks C codes at once, those behind the first one, which is
            what ``tokens`` holds and ``log_probs`` are of; 0 where ``keep`` is False. None for one code at a time.
    """

    tokens: Annotated[Tensor, _PER_TOKEN]
    keep: Annotated[Tensor, _PER_TOKEN]
    log_probs: Annotated[Tensor, _PER_TOKEN]
    finished: Annotated[Tensor, Shape("B G")]
    support: Annotated[
        Tensor | None, Shape("B G T K", pad="T K", lengths="lengths", least=1, fill=-1)
    ] = None
    following: Annotated[
        Tensor | None, Shape("B G T C_following", pad="T", lengths="lengths", least=1)
    ] = None

    @property
    def lengths(self) -> Tensor:
        """[B, G] number of kept tokens, stop token included."""
        return self.keep.sum(-1)


#: A sample of audio beyond this, 40 dB over full scale, is in another unit (16-bit numbers, for one) or broken: codecs
#: and judges refuse it. A little clipping is ordinary.
MAX_AMPLITUDE = 100.0


@dataclass(frozen=True)
class Speech(Checked):
    """One synthesised sample.

    Example:
        >>> import torch
        >>> Speech(torch.zeros(8000), 16000, codes=torch.tensor([3, 1, 4])).duration_s
        0.5

    Args:
        waveform: [num_samples] float32 on the CPU; empty where there is no code.
        sample_rate_hz: of the waveform.
        codes: [num_codes] int64 speech tokens that it was decoded from, without prompt and stop token.
        prompt: [num_samples] float32 on the CPU: the speaker prompt that the policy was given, which judges of the
            voice compare with; None, or no sample, where there was none.
        prompt_sample_rate_hz: of the prompt; 0 without one.
    """

    waveform: Annotated[Tensor, Shape("num_samples")]
    sample_rate_hz: int
    codes: Annotated[Tensor, Shape("num_codes")]
    prompt: Annotated[Tensor | None, Shape("num_prompt_samples")] = None
    prompt_sample_rate_hz: int = 0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[0] / self.sample_rate_hz


@dataclass(frozen=True)
class Hypothesis:
    """One decoded sample, as rewards and metrics see it.

    Example:
        >>> row = Utterance("clip-1", (), text="one two", duration_s=1.2)
        >>> Hypothesis(row, text="one tool", num_tokens=3).finished
        True

    Args:
        row: the manifest row that it is a hypothesis for.
        text: decoded text, not normalised; empty where speech was asked for.
        num_tokens: completion length in tokens, stop token included.
        finished: False where the length cap cut it.
        speech: the sample of a model that speaks.
        transcripts: of the speech, by the name of the ASR judge that was asked; None where it failed.
        prompt: the text of the prompt that the model read, of a row with hotwords; "" of others.
    """

    row: Utterance
    text: str
    num_tokens: int = 0
    finished: bool = True
    speech: Speech | None = None
    transcripts: Mapping[str, str | None] = field(default_factory=dict)
    # Not shown: a list of hundreds of words would be.
    prompt: str = field(default="", repr=False)


@dataclass(frozen=True)
class Scores(Batched):
    """Rewards of B x G samples. Higher is better.

    Example: a prompt with two samples, of which one could not be judged.
        >>> import torch
        >>> total = torch.tensor([[0.5, float("nan")]])
        >>> scores = Scores(total, ~total.isnan(), {"accuracy": total}, failures={"accuracy": 1})
        >>> scores.valid
        tensor([[ True, False]])

    Args:
        total: [B, G] float32 weighted sum; anything where ``valid`` is False.
        valid: [B, G] bool; False where a reward failed: such a sample leaves group statistics and loss.
        parts: unweighted parts by name, each [B, G]; NaN where that part failed.
        failures: how many samples each part failed on.
    """

    total: Annotated[Tensor, Shape("B G")]
    valid: Annotated[Tensor, Shape("B G")]
    parts: Annotated[dict[str, Tensor], Shape("B G")]
    failures: Counts = field(default_factory=dict)
