"""PocketSphinx, a recogniser of hidden Markov models: an ear of quite another kind than networks trained end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.judges.base import AsrJudge, JudgeError
from lightning_audiorl.types import Utterance

_GRAMMAR = "#JSGF V1.0;\ngrammar judge;\npublic <judge> = {rule};\n"


def word_loop(words: Sequence[str]) -> str:
    """A JSGF grammar of one or more of these words in any order.

    Example:
        >>> word_loop(["one", "two"]).splitlines()[-1]
        'public <judge> = ( one | two )+;'
    """
    return _GRAMMAR.format(rule=f"( {' | '.join(words)} )+")


class PocketSphinxJudge(AsrJudge):
    """The words of a list, of a grammar, or of PocketSphinx's own language model, in speech of its model's language.

    Its transcripts hold words alone; silence and noises that the decoder names are left out. A clip is heard as if it
    were the first one: the mean of the features, which the decoder carries from one utterance to the next, is set back
    before each. In a clip without any word the decoder may still find one, since a word loop has no other path.

    The model for English that comes with the package was trained on 16 kHz; of speech at 8 kHz, whose upper half is
    empty, it understands less.

    Args:
        words: that may be said, any number of them in any order; lower case for the package's dictionary.
        grammar: a grammar in JSGF, in place of ``words``. With neither, the package's language model is used.
        pronunciations: phones by word, of words that the dictionary does not have, such as ``{"llasa": "L AA S AH"}``.
        model: folder of an acoustic model; None takes that for American English.
        dictionary: file of its pronunciations; wanted with ``model``.
        options: more of PocketSphinx's settings, such as ``{"beam": 1e-60}``.
        name: see Judge.
        silence_check: see AsrJudge.

    Raises:
        ImportError: where the extra ``judges`` is not installed.
        ValueError: for words that the dictionary does not have, and for a grammar that cannot be read.
    """

    def __init__(
        self,
        words: Sequence[str] | None = None,
        grammar: str | None = None,
        pronunciations: Mapping[str, str] | None = None,
        model: str | None = None,
        dictionary: str | None = None,
        options: dict[str, Any] | None = None,
        name: str = "pocketsphinx",
        silence_check: bool = False,
    ) -> None:
        if find_spec("pocketsphinx") is None:
            raise ImportError(
                "PocketSphinxJudge: pocketsphinx is not installed: pip install 'lightning-audiorl[judges]'"
            )
        if words is not None and grammar is not None:
            raise ValueError("PocketSphinxJudge: give words or a grammar, not both")
        if words is not None and (isinstance(words, str) or not all(words)):
            raise ValueError(f"PocketSphinxJudge.words: want a list of words, got {words!r}")
        if (model is None) != (dictionary is None):
            raise ValueError(
                "PocketSphinxJudge: a model wants a dictionary, and a dictionary a model"
            )

        super().__init__(name, 16000)
        self.words = None if words is None else tuple(words)
        self.grammar = grammar
        self.pronunciations = dict(pronunciations or {})
        self.model = model
        self.dictionary = dictionary
        self.options = dict(options or {})
        self.silence_check = silence_check
        self._decoder: Any = None

        # Here, so that a word that it does not know is said before a run.
        self._decoder = self._new_decoder()
        self.freeze()

    def _new_decoder(self) -> Any:
        """A decoder that has heard nothing.

        Raises:
            ValueError: for unknown words, and a grammar that cannot be read.
        """
        grammar = word_loop(self.words) if self.words is not None else self.grammar
        settings: dict[str, Any] = {"samprate": self.sample_rate_hz, "loglevel": "FATAL"}
        if grammar is not None:
            settings["lm"] = None
        if self.model is not None:
            settings |= {"hmm": self.model, "dict": self.dictionary}

        decoder = import_module("pocketsphinx").Decoder(**settings | self.options)
        for word, phones in self.pronunciations.items():
            decoder.add_word(word, phones, True)
        unknown = [word for word in self.words or () if decoder.lookup_word(word) is None]
        if unknown:
            raise ValueError(
                f"PocketSphinxJudge.words: the dictionary has no {', '.join(unknown[:5])}; write it as the dictionary "
                "does (lower case), or give its phones in pronunciations"
            )

        if grammar is not None:
            try:
                decoder.add_jsgf_string("judge", grammar)
            except ValueError as error:
                raise ValueError(
                    f"PocketSphinxJudge.grammar: {error}; it is no JSGF, or has words that are not in the dictionary:\n"
                    f"{grammar[:200]}"
                ) from error
            decoder.activate_search("judge")
        return decoder

    def __getstate__(self) -> dict[str, Any]:
        # A decoder does not travel to another process, which makes its own.
        return self.__dict__ | {"_decoder": None}

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        return [self._words_in(waveform) for waveform in waveforms]

    def _words_in(self, waveform: Tensor) -> str:
        if self._decoder is None:
            self._decoder = self._new_decoder()
        decoder = self._decoder

        # Else the features' mean is what the clips before have left, and transcripts depend on their order.
        decoder.reinit_feat()
        samples = (waveform.cpu().clamp(-1, 1) * 32767).round().to(torch.int16)
        decoder.start_utt()
        try:
            decoder.process_raw(samples.numpy().tobytes(), full_utt=True)
        except RuntimeError as error:
            raise JudgeError(f"PocketSphinx could not read the clip: {error}") from error
        finally:
            decoder.end_utt()

        found = decoder.hyp()
        words = [] if found is None else found.hypstr.split()
        return " ".join(word for word in words if word[0] not in "<[+")
