"""Hypotheses for the eye and the ear, in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks.outputs import markdown_table, tensorboard_writers
from lightning_audiorl.callbacks.spoken_samples import has_speech, heard_table, spoken, spoken_group_table, write_speech
from lightning_audiorl.callbacks.view import RunView, run_view
from lightning_audiorl.text import fired_rules, normaliser_for
from lightning_audiorl.types import Hypothesis, PromptBatch, Scores


def rules_of(hypothesis: Hypothesis) -> str:
    """Names of the hallucination rules that fire."""
    normaliser = normaliser_for(hypothesis.row.lang)
    return ", ".join(fired_rules(normaliser.units(hypothesis.row.text), normaliser.units(hypothesis.text)))


def best_and_worst(scores: Scores, num_groups: int) -> list[tuple[int, int, int]]:
    """(prompt, best sample, worst sample) of the groups whose rewards lie furthest apart."""
    found = []
    for prompt, (totals, valid) in enumerate(zip(scores.total.tolist(), scores.valid.tolist(), strict=True)):
        ranked = sorted((sample for sample, use in enumerate(valid) if use), key=lambda sample: totals[sample])
        if len(ranked) > 1:
            found.append((totals[ranked[0]] - totals[ranked[-1]], prompt, ranked[-1], ranked[0]))
    return [place for _, *place in sorted(found)[:num_groups]]  # type: ignore[misc]


def group_table(groups: list[list[Hypothesis]], scores: Scores, places: Iterable[tuple[int, int, int]]) -> str:
    """Markdown: best and worst hypothesis of each place of `best_and_worst` with every reward part."""
    rows = []
    for prompt, *samples in places:
        for label, sample in zip(("best", "worst"), samples, strict=True):
            said = groups[prompt][sample]
            parts = [f"{part[prompt, sample]:.3f}" for part in scores.parts.values()]
            length = f"{said.num_tokens}" + ("" if said.finished else " (cut)")
            total = f"{scores.total[prompt, sample]:.3f}"
            rows.append([said.row.id, said.row.text, label, said.text, total, *parts, length, rules_of(said)])
    return markdown_table(["id", "reference", "", "hypothesis", "reward", *scores.parts, "tokens", "rules"], rows)


def hypothesis_table(groups: Iterable[list[Hypothesis]]) -> str:
    """Markdown: the first hypothesis of each group beside its reference."""
    rows = [
        [
            said.row.id,
            said.row.text,
            said.text,
            f"{said.num_tokens}" + ("" if said.finished else " (cut)"),
            rules_of(said),
        ]
        for said, *_ in groups
    ]
    return markdown_table(["id", "reference", "hypothesis", "tokens", "rules"], rows)


class SampleLogger(Callback):
    """Writes hypotheses to TensorBoard; without a TensorBoard logger it does nothing.

    Every few RL steps: the best and the worst hypothesis of the groups whose rewards lie furthest apart, as text and
    with their audio. At each evaluation: the first hypotheses of each set, the same rows every time.

    Of a policy that speaks: what the judges heard, with the sound and a mel spectrogram of each sample shown; the audio
    of its prompts is that of the speaker prompts.

    Args:
        every_n_steps: RL steps between two tables; 0 writes none. The first step is always shown.
        num_groups: groups shown.
        num_rows: hypotheses shown of each evaluation set; 0 shows none.
        max_audio_s: audio is cut here, in seconds; 0 writes no audio.
        num_spoken: of these rows, how many are written as sound too where the policy speaks.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        num_groups: int = 2,
        num_rows: int = 5,
        max_audio_s: float = 30.0,
        num_spoken: int = 3,
    ) -> None:
        if min(every_n_steps, num_groups, num_rows, max_audio_s, num_spoken) < 0:
            raise ValueError("SampleLogger: no setting may be negative")
        self.every_n_steps, self.num_groups, self.num_rows = every_n_steps, num_groups, num_rows
        self.max_audio_s, self.num_spoken = max_audio_s, num_spoken

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        run = run_view(pl_module)
        rl_step, step = run.rl_step, run.last_step
        is_due = self.every_n_steps > 0 and (rl_step == 1 or rl_step % self.every_n_steps == 0)
        writers = tensorboard_writers(trainer) if is_due else []
        if step is None or not writers:
            return
        places = best_and_worst(step.scores, self.num_groups)
        if not places:
            return
        speaks = has_speech(step.groups)
        table = (spoken_group_table if speaks else group_table)(step.groups, step.scores, places)
        for writer in writers:
            writer.add_text("groups", table, rl_step)
            for number, (prompt, *samples) in enumerate(places):
                self._write_audio(writer, f"groups/{number}", step.batch, prompt, rl_step)
                if speaks:
                    for label, sample in zip(("best", "worst"), samples, strict=True):
                        said = spoken(step.groups[prompt][sample])
                        write_speech(writer, f"groups/{number}/{label}", said, rl_step, self.max_audio_s)

    def _write_audio(self, writer: Any, tag: str, batch: PromptBatch, prompt: int, rl_step: int) -> None:
        rate = batch.sample_rate_hz
        num_samples = min(int(batch.num_samples[prompt]), round(self.max_audio_s * rate))
        if num_samples > 0:
            wave = batch.waveform[prompt, :num_samples].detach().float().cpu().clamp(-1, 1)
            writer.add_audio(tag, wave[None], rl_step, sample_rate=rate)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_hypotheses(trainer, run_view(pl_module), "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_hypotheses(trainer, run_view(pl_module), "test")

    def _write_hypotheses(self, trainer: Trainer, run: RunView, kind: str) -> None:
        writers = tensorboard_writers(trainer) if self.num_rows > 0 else []
        for writer in writers:
            for name, groups in run.last_hypotheses.items():
                shown, speaks = groups[: self.num_rows], has_speech(groups)
                table = (heard_table if speaks else hypothesis_table)(shown)
                writer.add_text(f"{kind}/{name}", table, run.rl_step)
                for number, (said, *_) in enumerate(shown[: self.num_spoken] if speaks else ()):
                    tag = f"{kind}/{name}/{number}"
                    write_speech(writer, tag, spoken(said), run.rl_step, self.max_audio_s)
