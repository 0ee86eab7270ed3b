"""How a codec outside transformers is plugged in, by the example of CosyVoice2's token-to-waveform.

CosyVoice2 (arXiv 2412.10117) speaks 25 codes per second of 6,561. Its flow matching wants the speaker prompt: codes,
mel spectrogram and speaker embedding. `CosyVoice2Codec` holds what the interface asks for; three methods are left, over
whichever package has the networks. With the authors' own package (names as of its commit ace7c47; it is not installed
with this library, and this example was not run against its weights):

    class MyCosyVoice2(CosyVoice2Codec):
        def __init__(self, model_dir: str) -> None:
            super().__init__()
            from cosyvoice.cli.cosyvoice import CosyVoice2
            self.upstream = CosyVoice2(model_dir)
            # Submodules: strategies move them, and the content hash tells this codec from another.
            self.flow, self.hift = self.upstream.model.flow, self.upstream.model.hift

        def clip(self, waveform):  # a wav file in memory, which upstream's front end reads
            file = io.BytesIO()
            soundfile.write(file, waveform.cpu().numpy(), 16000, format="WAV", subtype="FLOAT")
            file.seek(0)
            return file

        def tokens(self, waveform):
            return self.upstream.frontend._extract_speech_token(self.clip(waveform))[0][0]

        def features(self, waveform):
            front = self.upstream.frontend
            mel = front._extract_speech_feat(self.clip(waveform))[0][0]
            return mel, front._extract_spk_embedding(self.clip(waveform))[0]

        def speak(self, codes, prompt_codes, prompt_mel, embedding):
            count = lambda x: torch.tensor([len(x)], dtype=torch.int32, device=x.device)
            mel, _ = self.flow.inference(
                token=codes[None].int(), token_len=count(codes),
                prompt_token=prompt_codes[None].int(), prompt_token_len=count(prompt_codes),
                prompt_feat=prompt_mel[None], prompt_feat_len=count(prompt_mel),
                embedding=embedding[None], streaming=False, finalize=True,
            )
            return self.hift.inference(speech_feat=mel, cache_source=torch.zeros(1, 1, 0))[0][0]

and in YAML, where a policy names its codec:

    codec:
      class_path: my_package.MyCosyVoice2
      init_args: {model_dir: path/to/CosyVoice2-0.5B}
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from lightning_audiorl.codecs.base import Codec, CodecError, SpeakerCondition

#: Mel frames of the speaker prompt for each of its codes.
_FRAMES_PER_CODE = 2
#: Codes [T], mel [2 T, M] and embedding [D] of a speaker prompt.
_Prompt = tuple[Tensor, Tensor, Tensor]


class CosyVoice2Codec(Codec):
    """Lengths, checks and speaker prompts of CosyVoice2; a subclass brings the networks. 16 kHz in, 24 kHz out.

    Its vocoder may give a few samples more or less than its codes make. It draws noise: each row is decoded under the
    same seed, and the global generator is left as it was.
    """

    #: Less than a code's 960 samples.
    output_slack: ClassVar[int] = 959

    def __init__(self) -> None:
        super().__init__(16000, 25.0, 6561, output_sample_rate_hz=24000)

    @abstractmethod
    def tokens(self, waveform: Tensor) -> Tensor:
        """One clip [S] at 16 kHz -> its codes [T]."""

    @abstractmethod
    def features(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """A speaker prompt [S] at 16 kHz -> its mel spectrogram [F, M] at 50 frames per second, its embedding [D]."""

    @abstractmethod
    def speak(
        self,
        codes: Tensor,
        prompt_codes: Tensor,
        prompt_mel: Tensor,
        embedding: Tensor,
    ) -> Tensor:
        """Codes [T] of a row and its prompt, two mel frames per code -> waveform [S] at 24 kHz without the prompt."""

    def _encode(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        empty = num_samples.new_zeros(0, dtype=torch.long)
        rows = []
        for wave, num in zip(waveform, num_samples.tolist(), strict=True):
            rows.append(self.tokens(wave[:num]).long() if num else empty)
        lengths = torch.tensor([len(row) for row in rows], device=waveform.device)
        return pad_sequence(rows, batch_first=True), lengths

    def _decode(
        self,
        codes: Tensor,
        lengths: Tensor,
        condition: SpeakerCondition | None,
    ) -> tuple[Tensor, Tensor]:
        if condition is None:
            raise CodecError(
                f"{type(self).__name__}: speaks in the voice of a prompt; give every row a speaker prompt"
            )

        waveforms: list[Tensor] = []
        last: tuple[Tensor, _Prompt] | None = None
        for b, length in enumerate(lengths.tolist()):
            if not length:
                waveforms.append(torch.zeros(0, device=codes.device))
                continue

            # The samples of a group share their prompt, which is then read once.
            clip = self._clip(condition, b)
            if last is None or not torch.equal(last[0], clip):
                last = (clip, self._prompt(clip))
            prompt_codes, prompt_mel, embedding = last[1]
            if condition.embedding is not None:
                embedding = condition.embedding[b]

            # Seeded alike, so that a row sounds the same whatever stands before it.
            with torch.random.fork_rng():
                torch.manual_seed(0)
                waveforms.append(self.speak(codes[b, :length], prompt_codes, prompt_mel, embedding))

        num_samples = torch.tensor([len(wave) for wave in waveforms], device=codes.device)
        return pad_sequence(waveforms, batch_first=True), num_samples

    def _clip(self, condition: SpeakerCondition, row: int) -> Tensor:
        """[S] the prompt of one row at the codec's rate."""
        clip = condition.waveform[row, : int(condition.num_samples[row])].float()
        if not len(clip):
            raise CodecError(
                f"{type(self).__name__}: row {row} of the batch has no speaker prompt; give it one"
            )
        return resample(clip, condition.sample_rate_hz, self.sample_rate_hz)

    def _prompt(self, clip: Tensor) -> _Prompt:
        """Codes, mel and embedding of a prompt [S], codes and mel of one duration."""
        prompt_codes = self.tokens(clip).long()
        mel, embedding = self.features(clip)
        num = min(len(prompt_codes), len(mel) // _FRAMES_PER_CODE)
        return prompt_codes[:num], mel[: num * _FRAMES_PER_CODE], embedding
