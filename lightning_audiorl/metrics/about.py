"""What a reader is told of every metric of an evaluation set: meaning, unit, range, what is healthy, what to do else.

`python -m tools.metrics --write` makes docs/metrics.md of this and of the specs. A number is healthy by comparison with
the start of its own run unless a bound is named; bounds that are named are those at which the package itself warns.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What is said of a metric.

    Args:
        what: it is.
        healthy: what a run that fares well shows.
        do: where it shows something else.
        unit: of its values.
        range: of them.

    Example:
        >>> About("words of which two are one", "0", "separate them").unit
        'share'
    """

    what: str
    healthy: str
    do: str = "-"
    unit: str = "share"
    range: str = "0 to 1"


# Said of several metrics.
_AT_OR_BELOW = "at or below the start"
_AT_OR_ABOVE = "at or above the start"
_AS_START = "as at the start"
_CONSTANT = "the same at each evaluation"
WHEN_SILENT = (
    "give `Accuracy` a floor of -1; pay less for what punishes text; fewer rows without speech"
)
WHEN_LOOPING = "a reward against hallucination with more weight; larger beta; the best checkpoint"
_LISTEN = "listen to samples; reward by several judges; stop at the best checkpoint"
_SLOWER = "lower lr; larger beta; the best checkpoint"
_HOTWORDS = "more rows with keywords; a keyword reward"
_BATCHES = "smaller evaluation batches change nothing but this; look at `seconds/*`"
COUNT = "0 and more"
_NO_BOUND = "0 to 1, more is possible"

#: Of evaluation sets, by name.
EVALUATION: dict[str, About] = {
    # --- recognition
    "wer": About(
        "word errors (substituted, deleted, inserted) for each reference word",
        "falls; below 1 from the start",
        "above 1: finetune by supervision first. Rises: " + _SLOWER,
        range=_NO_BOUND,
    ),
    "cer": About(
        "character errors for each reference character, spaces left out; of speech what the judge that rewards hears",
        "falls",
        _SLOWER,
        range=_NO_BOUND,
    ),
    "insertion_rate": About(
        "words too many, for each reference word", _AT_OR_BELOW, WHEN_LOOPING, range=_NO_BOUND
    ),
    "deletion_rate": About(
        "reference words left out, for each reference word",
        "at most 0.2 above the start",
        "the policy falls silent: " + WHEN_SILENT,
    ),
    "substitution_rate": About(
        "reference words replaced by others, for each reference word", _AT_OR_BELOW, _SLOWER
    ),
    "correct_rate": About("reference words that were said, in order", _AT_OR_ABOVE, _SLOWER),
    "loop_rate": About("utterances in which words repeat themselves", "0", WHEN_LOOPING),
    "hallucination_rate": About(
        "utterances in which a hallucination rule fires: loop, text for silence, runaway length",
        _AT_OR_BELOW,
        WHEN_LOOPING,
    ),
    "nonspeech_text_rate": About(
        "clips without speech for which text was written",
        _AT_OR_BELOW,
        "rows without speech among the training rows; a reward against hallucination",
    ),
    "nonspeech_words_per_minute": About(
        "words written for a minute of audio without speech",
        _AT_OR_BELOW,
        "as for `nonspeech_text_rate`",
        "words a minute",
        COUNT,
    ),
    "keyword_f1": About(
        "harmonic mean of precision and recall of keywords", _AT_OR_ABOVE, _HOTWORDS
    ),
    "keyword_precision": About(
        "written keywords that were said", _AT_OR_ABOVE, "shorter lists; fewer distractors"
    ),
    "keyword_recall": About("keywords said that were written", _AT_OR_ABOVE, _HOTWORDS),
    "hotword_recall": About(
        "keywords written, of rows whose list in the prompt has them",
        "above `hotword_recall_none`",
        _HOTWORDS,
    ),
    "hotword_recall_wrong": About(
        "keywords written, of rows whose list has other words",
        "near `hotword_recall_none`",
        "train with lists of wrong words, too",
    ),
    "hotword_recall_none": About("keywords written, of rows without a list", _AS_START, _HOTWORDS),
    "hotword_false_alarm_rate": About(
        "rows in whose text a listed word stands that nobody said",
        _AT_OR_BELOW,
        "more distractors in training",
    ),
    "b_wer": About(
        "error rate of the words in keywords",
        "falls, and `u_wer` does not rise",
        _HOTWORDS,
        range=_NO_BOUND,
    ),
    "u_wer": About(
        "error rate of all words not in keywords", _AT_OR_BELOW, _SLOWER, range=_NO_BOUND
    ),
    "utterance_wer": About(
        "mean over utterances of the error rate of each, however short",
        "falls",
        _SLOWER,
        range=_NO_BOUND,
    ),
    "length_ratio": About(
        "words said for each word spoken",
        "near 1; at least 0.8 of the start",
        "shrinks: " + WHEN_SILENT + ". Grows: " + WHEN_LOOPING,
        "words a word",
        COUNT,
    ),
    "exact_match": About("utterances without any error", _AT_OR_ABOVE, _SLOWER),
    "unfinished_rate": About(
        "answers that the length cap cut", "0", "a larger `max_new_tokens`; else " + WHEN_LOOPING
    ),
    "real_time_factor": About(
        "seconds of computing for a second of audio", _AS_START, _BATCHES, "s/s", COUNT
    ),
    "num_utterances": About("answers that were counted", _CONSTANT, unit="count", range=COUNT),
    "num_reference_words": About(
        "words that they are compared with", _CONSTANT, unit="count", range=COUNT
    ),
    "skipped_rows": About(
        "rows left out because their audio cannot be used",
        "0",
        "mend or remove the rows that the log names",
        "rows",
        COUNT,
    ),
    "reference_logprob": About(
        "mean log-probability of the right texts",
        "rises, or stays",
        "falls while WER improves: other spellings are learnt; look at samples",
        "nats",
        "up to 0",
    ),
    "empty_answer_probability": About(
        "mean probability of no text where none is right",
        _AT_OR_ABOVE,
        "a reference in the group, see [rarely right](rarely_right.md)",
    ),
    # --- synthesis
    "held_out_cer": About(
        "character errors that a judge hears which no reward asks",
        "falls with `cer`",
        _LISTEN,
        range=_NO_BOUND,
    ),
    "judge_gap": About(
        "`held_out_cer` less `cer`",
        "at most 0.05 above the start",
        "the policy may be learning the judge: " + _LISTEN,
        "share of characters",
        "any",
    ),
    "similarity": About(
        "cosine of the voice and the speaker prompt, by the encoder that rewards",
        _AT_OR_ABOVE,
        "a reward for similarity; " + _SLOWER,
        "cosine",
        "-1 to 1",
    ),
    "held_out_similarity": About(
        "the same by an encoder that no reward asks",
        "moves with `similarity`",
        _LISTEN,
        "cosine",
        "-1 to 1",
    ),
    "similarity_gap": About(
        "`similarity` less `held_out_similarity`",
        "at most 0.05 above the start",
        _LISTEN,
        "cosine",
        "-2 to 2",
    ),
    "tokens_per_unit": About(
        "speech tokens for each word, or character, of the text",
        "within 10 % of the start",
        "more or less than the text is said: a reward for length; " + _SLOWER,
        "tokens",
        COUNT,
    ),
    "missing_stop_rate": About(
        "samples that the length cap cut",
        "0",
        "a larger `max_new_tokens`; a reward for length",
    ),
    "f0_mean_hz": About(
        "mean pitch of voiced frames; unknown where fewer than 5 % are voiced",
        "within 10 % of the start",
        "another voice: a reward for similarity; " + _SLOWER,
        "Hz",
        "50 to 500",
    ),
    "f0_std_semitones": About(
        "spread of the pitch within a sample",
        _AS_START,
        "falls: speech becomes flat; listen, larger beta",
        "semitones",
        COUNT,
    ),
    "voiced_share": About(
        "frames that have a pitch", _AS_START, "listen: whisper, noise or silence"
    ),
    "duration_ratio": About(
        "seconds spoken for each second expected",
        "within 10 % of the start",
        "the pace has changed: a reward for length",
        "s/s",
        COUNT,
    ),
    "empty_rate": About("samples that say nothing, empty or silent", "0", "listen; " + _SLOWER),
    "judge_failure_rate": About(
        "answers of judges that failed, for each sample",
        "0",
        "the log names the first; look at the judge's input",
        range=_NO_BOUND,
    ),
    "rtf": About("seconds of computing for a second spoken", _AS_START, _BATCHES, "s/s", COUNT),
    "num_samples": About("samples that were counted", _CONSTANT, unit="count", range=COUNT),
    "no_speech_rate": About(
        "samples with words to say in which no speech is heard", "0", "listen; " + _SLOWER
    ),
    "leading_s": About(
        "silence before the first speech, mean", _AS_START, "trim the training audio", "s", COUNT
    ),
    "tail_s": About(
        "audio after the last speech, mean",
        _AS_START,
        "a reward for length or for the stop",
        "s",
        COUNT,
    ),
    "tail_sound_s": About(
        "of that tail what can be heard: noise, breath",
        _AT_OR_BELOW,
        "listen; a reward for the stop",
        "s",
        COUNT,
    ),
    # --- several samples for each text, and further ears
    "judge_tau": About(
        "rank agreement (Kendall's tau-b) of rewarding judge and held-out one over the samples of a text, mean",
        _AT_OR_ABOVE,
        _LISTEN,
        "-",
        "-1 to 1",
    ),
    "judge_tau_groups": About(
        "texts that `judge_tau` rests on: those that both judges order",
        "tens; fewer as samples get alike",
        "more samples for each text in `eval_decodings`",
        "count",
        COUNT,
    ),
    "cer_by_*": About("character errors by a further ear", "falls", _LISTEN, range=_NO_BOUND),
    "judge_gap_by_*": About(
        "`cer_by_*` less `cer`", _AT_OR_BELOW, _LISTEN, range="below 0 to 1, more is possible"
    ),
    "judge_tau_by_*": About(
        "as `judge_tau`, with a further ear", _AT_OR_ABOVE, _LISTEN, "-", "-1 to 1"
    ),
    "judge_tau_groups_by_*": About(
        "texts that `judge_tau_by_*` rests on",
        "tens; fewer as samples get alike",
        "more samples for each text in `eval_decodings`",
        "count",
        COUNT,
    ),
    # --- how sure a judge is; with `held_out_` before it, the one held out
    "log_prob": About(
        "log-probability of the tokens of a transcript, mean", _AT_OR_ABOVE, _LISTEN, "nats", "to 0"
    ),
    "held_out_log_prob": About(
        "the same of the judge held out", _AT_OR_ABOVE, _LISTEN, "nats", "to 0"
    ),
    "no_speech_prob": About("probability that nobody speaks, by Whisper", _AT_OR_BELOW, _LISTEN),
    "held_out_no_speech_prob": About("the same of the judge held out", _AT_OR_BELOW, _LISTEN),
    "like_silence": About(
        "samples whose transcript a silent clip gets, too", "0", "listen; another judge"
    ),
    "held_out_like_silence": About("the same of the judge held out", "0", "listen; another judge"),
    "heard_again": About(
        "samples heard as repetition in a window cut to the clip, and heard again in the whole one",
        _AT_OR_BELOW,
        "listen: the policy repeats itself, or the tail is too short: a longer `window_tail_s`",
    ),
    "held_out_heard_again": About(
        "the same of the judge held out", _AT_OR_BELOW, "a longer `window_tail_s`"
    ),
}
