"""Hypotheses for the eye and the ear, in TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks.clips import (
    ClipWriter,
    caption_of,
    changed_most,
    heard_caption,
)
from lightning_audiorl.callbacks.outputs import markdown_table, tensorboard_writers
from lightning_audiorl.callbacks.report_rows import clip_loader
from lightning_audiorl.callbacks.spoken_samples import (
    has_speech,
    labelled,
    length_text,
    reward_cells,
    spoken,
    spoken_caption,
    spoken_group_table,
    transcript_table,
    write_speech,
)
from lightning_audiorl.callbacks.view import RunView, StepView, run_view
from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.metrics.charts import CHARTS
from lightning_audiorl.text import compared_units, fired_rules, normaliser_for
from lightning_audiorl.text.alignment import aligned_units, num_errors
from lightning_audiorl.types import Hypothesis, PromptBatch, Scores

# What Markdown would read as bold, code or an escape.
_MARKS = re.compile(r"[\\*_`]")


def rules_of(hypothesis: Hypothesis) -> str:
    """Names of the hallucination rules that fire.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> rules_of(Hypothesis(Utterance("a", (), text="", duration_s=1.0), "thank you"))
        'text_for_silence'
    """
    row = hypothesis.row
    reference, units = compared_units(row.text, hypothesis.text, normaliser_for(row.lang))
    return ", ".join(fired_rules(reference, units, lang=row.lang))


def best_and_worst(scores: Scores, num_groups: int) -> list[tuple[int, int, int]]:
    """(prompt, best sample, worst sample) of the groups whose rewards lie furthest apart.

    Args:
        scores: [B, G]; samples that are not valid are passed over.
        num_groups: at most so many.
    """
    found = []
    for prompt, totals in enumerate(scores.total.tolist()):
        valid = scores.valid[prompt].nonzero().flatten().tolist()
        ranked = sorted(valid, key=lambda sample: totals[sample])
        if len(ranked) > 1:
            worst = ranked[0]
            best = ranked[-1]
            found.append((totals[worst] - totals[best], prompt, best, worst))

    # The difference is negative: the widest group comes first, and of equal ones the first prompt.
    return [(prompt, best, worst) for _, prompt, best, worst in sorted(found)[:num_groups]]


def group_table(
    groups: list[list[Hypothesis]],
    scores: Scores,
    places: Iterable[tuple[int, int, int]],
) -> str:
    """Markdown: best and worst hypothesis of each place of `best_and_worst` with every component of the reward."""
    rows = []
    prompts = []
    for place in places:
        for label, prompt, sample in labelled(place):
            hypothesis = groups[prompt][sample]
            texts = [hypothesis.row.id, hypothesis.row.text, label, hypothesis.text]
            rewards = reward_cells(scores, prompt, sample)
            rows.append([*texts, *rewards, length_text(hypothesis), rules_of(hypothesis)])
            prompts.append(hypothesis.prompt)

    header = ["id", "reference", "", "hypothesis", "reward", *scores.parts, "tokens", "rules"]
    return _with_prompts(header, rows, prompts)


def hypothesis_table(groups: Iterable[list[Hypothesis]]) -> str:
    """Markdown: of each group the reference, and below it the first hypothesis; what is wrong is bold in both.

    Texts with errors stand as they are compared, normalised.
    """
    rows = []
    prompts = []
    for first, *_ in groups:
        said, heard = marked_texts(first)
        rows.append([first.row.id, "said", said, "", ""])
        rows.append(["", "heard", heard, length_text(first), rules_of(first)])
        prompts += ["", first.prompt]
    return _with_prompts(["id", "", "text", "tokens", "rules"], rows, prompts)


def _with_prompts(header: list[str], rows: list[list[str]], prompts: list[str]) -> str:
    """The table, with a column of the prompts that the model read where a row has hotwords."""
    if not any(prompts):
        return markdown_table(header, rows)
    longer = [[*row, prompt] for row, prompt in zip(rows, prompts, strict=True)]
    return markdown_table([*header, "prompt"], longer)


def marked_texts(hypothesis: Hypothesis) -> tuple[str, str]:
    """Reference and hypothesis, units that are wrong in bold; both as they were written where none is.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="Turn left now.", duration_s=1.0)
        >>> marked_texts(Hypothesis(row, "turn the left cow"))
        ('turn left **now**', 'turn **the** left **cow**')
        >>> marked_texts(Hypothesis(row, "turn left, now"))
        ('Turn left now.', 'turn left, now')
    """
    row = hypothesis.row
    normaliser = normaliser_for(row.lang)
    aligned = aligned_units(*compared_units(row.text, hypothesis.text, normaliser))
    if not num_errors(aligned):
        return row.text, hypothesis.text

    said: list[str] = []
    heard: list[str] = []
    for one in aligned:
        # Of what is missing or too much, one side is empty.
        for units, unit in ((said, one.reference), (heard, one.hypothesis)):
            if unit:
                shown = _MARKS.sub(r"\\\g<0>", unit)
                units.append(shown if one.kind == "hit" else f"**{shown}**")

    gap = " " if normaliser.unit == "word" else ""
    return gap.join(said), gap.join(heard)


class SampleLogger(Callback):
    """Writes hypotheses to TensorBoard; without a TensorBoard logger it does nothing.

    Every few RL steps: the best and the worst hypothesis of the groups whose rewards lie furthest apart, as text and
    with their audio. At each evaluation: the first hypotheses of each set, the same rows every time, and the audio of
    those clips, of the first 64 rows, whose errors have changed most since the first evaluation; at that one of those
    with most errors. Where rows have hotwords, the prompt that the model read stands beside them.

    Each clip has a caption: what was said or asked, what was heard, error rate or reward.

    The tab of custom scalars has the five charts that tell first how a run fares, see `CHARTS`.

    Of a policy that speaks: the transcripts of the judges, with the sound and a mel spectrogram of each sample shown;
    the audio of its prompts is that of the speaker prompts.

    Args:
        every_n_steps: RL steps between two tables; 0 writes none. The first step is always shown.
        num_groups: groups shown.
        num_rows: hypotheses shown of each evaluation set; 0 shows none.
        max_audio_s: audio is cut here, in seconds; 0 writes no audio.
        num_spoken: of these rows, how many are written as sound too where the policy speaks.
        num_clips: clips of each evaluation set that are written as sound where the policy transcribes.
        max_audio_mib: of sound that a run writes at most.

    Raises:
        ValueError: for a negative setting.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        num_groups: int = 2,
        num_rows: int = 5,
        max_audio_s: float = 30.0,
        num_spoken: int = 3,
        num_clips: int = 3,
        max_audio_mib: float = 64.0,
    ) -> None:
        check_count("SampleLogger.every_n_steps", every_n_steps)
        check_count("SampleLogger.num_groups", num_groups)
        check_count("SampleLogger.num_rows", num_rows)
        check_number("SampleLogger.max_audio_s", max_audio_s, at_least=0, infinite=True)
        check_count("SampleLogger.num_spoken", num_spoken)
        check_count("SampleLogger.num_clips", num_clips)
        check_number("SampleLogger.max_audio_mib", max_audio_mib, at_least=0, infinite=True)
        self.every_n_steps = every_n_steps
        self.num_groups = num_groups
        self.num_rows = num_rows
        self.max_audio_s = max_audio_s
        self.num_spoken = num_spoken
        self.num_clips = num_clips
        self.clips = ClipWriter(max_audio_s, max_audio_mib)
        # First hypotheses of the first evaluation, by set and row.
        self._start: dict[str, dict[str, str]] = {}

    def state_dict(self) -> dict[str, Any]:
        """What was heard at first, and how much sound was written."""
        return {"start": self._start, "num_bytes": self.clips.num_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        self._start = state_dict["start"]
        self.clips.num_bytes = state_dict["num_bytes"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay out the charts."""
        layout = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        for writer in tensorboard_writers(trainer):
            writer.add_custom_scalars({"how the run fares": layout})

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """Write groups where they are due."""
        run = run_view(pl_module)
        rl_step = run.rl_step
        # The first step shows at once whether prompts and rewards are what they should be.
        is_on = self.every_n_steps > 0
        is_due = is_on and (rl_step == 1 or rl_step % self.every_n_steps == 0)
        writers = tensorboard_writers(trainer) if is_due else []
        step = run.last_step
        if step is None or not writers:
            return

        places = best_and_worst(step.scores, self.num_groups)
        if not places:
            return

        make_table = spoken_group_table if has_speech(step.groups) else group_table
        table = make_table(step.groups, step.scores, places)
        for writer in writers:
            writer.add_text("groups", table, rl_step)
            self._write_groups(writer, step, places, rl_step)

    def _write_groups(
        self,
        writer: Any,
        step: StepView,
        places: list[tuple[int, int, int]],
        rl_step: int,
    ) -> None:
        """The audio of each place's prompt; of a policy that speaks that of its two samples, too."""
        totals = step.scores.total
        for number, place in enumerate(places):
            tag = f"groups/step {rl_step}/{number}"
            is_spoken = has_speech(step.groups)
            parts = [] if is_spoken else [f"said: {step.batch.rows[place[0]].text}"]
            for label, prompt, sample in labelled(place):
                one = step.groups[prompt][sample]
                reward = float(totals[prompt, sample])
                if is_spoken:
                    caption = spoken_caption(one, reward)
                    write_speech(
                        self.clips, writer, f"{tag}/{label}", spoken(one), rl_step, caption
                    )
                else:
                    parts.append(f"{label} ({reward:.2f}): {one.text or '(nothing)'}")

            caption = caption_of(parts or ["speaker prompt"])
            self._write_prompt(writer, tag, step.batch, place[0], rl_step, caption)

    def _write_prompt(
        self,
        writer: Any,
        tag: str,
        batch: PromptBatch,
        prompt: int,
        rl_step: int,
        caption: str,
    ) -> None:
        wave = batch.waveform[prompt, : int(batch.num_samples[prompt])]
        self.clips.write(writer, tag, wave, batch.sample_rate_hz, rl_step, caption)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the first hypotheses of each set."""
        self._write_hypotheses(trainer, run_view(pl_module), "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the first hypotheses of each set."""
        self._write_hypotheses(trainer, run_view(pl_module), "test")

    def _write_hypotheses(self, trainer: Trainer, run: RunView, kind: str) -> None:
        writers = tensorboard_writers(trainer) if self.num_rows > 0 else []
        for writer in writers:
            for set_name, groups in run.last_hypotheses.items():
                tag = f"{kind}/{set_name}"
                self._write_set(writer, tag, groups[: self.num_rows], run.rl_step)
                if not has_speech(groups):
                    self._write_clips(trainer, writer, tag, groups, run.rl_step)

        if kind == "val" and trainer.state.fn == "fit" and not self._start:
            for set_name, groups in run.last_hypotheses.items():
                self._start[set_name] = {first.row.id: first.text for first, *_ in groups}

    def _write_set(
        self,
        writer: Any,
        tag: str,
        groups: list[list[Hypothesis]],
        rl_step: int,
    ) -> None:
        """The table of a set; of a policy that speaks the sound of its first rows, too."""
        if not has_speech(groups):
            writer.add_text(tag, hypothesis_table(groups), rl_step)
            return

        writer.add_text(tag, transcript_table(groups), rl_step)
        for number, (first, *_) in enumerate(groups[: self.num_spoken]):
            clip_tag = f"{tag}/step {rl_step}/{number}"
            caption = spoken_caption(first)
            write_speech(self.clips, writer, clip_tag, spoken(first), rl_step, caption)

    def _write_clips(
        self,
        trainer: Trainer,
        writer: Any,
        tag: str,
        groups: list[list[Hypothesis]],
        rl_step: int,
    ) -> None:
        """The sound of the clips that have changed most since the first evaluation."""
        load = clip_loader(trainer)
        if load is None or not self.max_audio_s:
            return

        start = self._start.get(tag.partition("/")[2], {})
        for number, one in enumerate(changed_most(groups, start, self.num_clips)):
            clip = load(one.row)
            if clip is not None:
                caption = heard_caption(one, start.get(one.row.id))
                clip_tag = f"{tag}/step {rl_step}/{number}"
                self.clips.write(writer, clip_tag, *clip, rl_step, caption)
