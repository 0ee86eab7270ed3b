"""How sure a greedy recogniser of transformers is: log-probability of its tokens, probability that nobody speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from lightning_audiorl.judges.transcript import LOG_PROB, NO_SPEECH_PROB

# Whisper's token for a window without speech has had two names.
_NO_SPEECH_TOKENS = ("<|nospeech|>", "<|nocaptions|>")


def no_speech_token(tokenizer: Any) -> int | None:
    """Id of Whisper's token for a window without speech; None where the vocabulary has none."""
    vocabulary = tokenizer.get_vocab()
    for token in _NO_SPEECH_TOKENS:
        if token in vocabulary:
            return int(vocabulary[token])
    return None


class GreedyConfidence(LogitsProcessor):
    """Looks on while ``generate`` decodes greedily, and changes nothing of it. For one call.

    It is the last of the logits processors: it sees the scores that the next token is chosen by, with what the model
    must not write taken out, as Whisper's own ``avg_logprob`` does.

    Args:
        model: an encoder-decoder.
        no_speech: token of `no_speech_token`; None leaves that probability out.
        encoded: [B, F, D], where ``generate`` is given the encoder's outputs and does not run it.

    Raises:
        ValueError: where the model's configuration names no token to end with.
    """

    def __init__(
        self,
        model: Any,
        no_speech: int | None,
        encoded: Tensor | None = None,
    ) -> None:
        ends = model.generation_config.eos_token_id
        if ends is None:
            raise ValueError(
                "TransformersJudge.confidence: the model's generation_config has no eos_token_id, so where a "
                "transcript ends is not known; set confidence: false"
            )
        self.model = model
        self.no_speech = no_speech
        self.ends = torch.tensor(ends).reshape(-1)

        self._encoded = encoded
        self._windows: list[Tensor] = []
        self._is_new_window = True
        self._alive: Tensor | None = None
        self._totals: Tensor | None = None
        self._counts: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While ``generate`` runs: the encoder's outputs are kept, and each run of it begins a window."""

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._encoded = output[0]
            self._is_new_window = True

        hook = self.model.get_encoder().register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores as they are; their best log-probability is added up."""
        if self._is_new_window:
            self._is_new_window = False
            self._alive = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
            if self._encoded is not None:
                self._windows.append(self._encoded)
        else:
            assert self._alive is not None
            has_ended = torch.isin(input_ids[:, -1], self.ends.to(input_ids.device))
            self._alive = self._alive & ~has_ended

        if self._totals is None or self._counts is None:
            self._totals = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
            self._counts = torch.zeros_like(self._totals)

        best = scores.float().log_softmax(-1).amax(-1)
        self._totals += torch.where(self._alive, best, 0.0).double()
        self._counts += self._alive
        return scores

    def measures(self) -> list[dict[str, float]]:
        """Of each clip: the mean log-probability of its tokens, the end among them, and of no speech where known."""
        assert self._totals is not None
        assert self._counts is not None
        log_probs = (self._totals / self._counts).tolist()
        found = [{LOG_PROB: log_prob} for log_prob in log_probs]

        if self.no_speech is not None and self._windows:
            # Of a clip of several windows the mean over them.
            by_window = torch.stack([self._no_speech_probs(encoded) for encoded in self._windows])
            for measures, probability in zip(found, by_window.mean(0).tolist(), strict=True):
                measures[NO_SPEECH_PROB] = probability
        return found

    @torch.no_grad()
    def _no_speech_probs(self, encoded: Tensor) -> Tensor:
        """[B] of the first token behind the start, where Whisper was taught to write it."""
        start = self.model.generation_config.decoder_start_token_id
        first = torch.full((len(encoded), 1), start, device=encoded.device)
        logits = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded), decoder_input_ids=first
        ).logits
        return logits[:, -1].float().softmax(-1)[:, self.no_speech].double()
