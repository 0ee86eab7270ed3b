"""Rules one after the other, and rules over the text to be spoken."""

from __future__ import annotations

from lightning_audiorl.data.corpora.texts import outside
from lightning_audiorl.data.mix.selection.base import Candidate, SubsetBuilder, Verdict


class Filters(SubsetBuilder):
    """Rules one after the other: a row stays when all keep it; the first that does not is what it is counted under.

    Priorities add up: the rules that rank rows (such as `PassRate`) rank those that stay.

    Args:
        rules: subset builders that need no places of their own (no `RandomControl` with ``like``).
        num_rows: most rows kept; none keeps all.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> rules = Filters([TextCharset("abcdefghijklmnopqrstuvwxyz "), TextLength(min_words=2)])
        >>> for text in ("go home", "go", "Go home"):
        ...     print(rules.judge(Candidate(0, Utterance("a", (), text, 1.0))).reason)
        text within the charset; text of 2 words
        text of fewer than 2 words
        text has a character outside the charset
    """

    def __init__(self, rules: list[SubsetBuilder], num_rows: int | None = None) -> None:
        super().__init__(num_rows)
        if not rules:
            raise ValueError("Filters.rules: give at least one rule")
        for number, rule in enumerate(rules):
            if rule.like is not None or rule.num_rows is not None:
                raise ValueError(
                    f"Filters.rules[{number}]: {type(rule).__name__} follows another subset or has its own num_rows; "
                    "give num_rows to Filters, and make such a rule a subset by itself"
                )

        self.rules = rules
        self.surveys = any(rule.surveys for rule in rules)

    @property
    def needs_hypotheses(self) -> bool:  # type: ignore[override]
        """Whether one of the rules does."""
        return any(rule.needs_hypotheses for rule in self.rules)

    def survey(self, candidate: Candidate) -> None:
        """Show the row to the rules that survey."""
        for rule in self.rules:
            if rule.surveys:
                rule.survey(candidate)

    def judge(self, candidate: Candidate) -> Verdict:
        verdicts = []
        for rule in self.rules:
            verdict = rule.judge(candidate)
            if not verdict.keep:
                return verdict
            verdicts.append(verdict)

        reason = "; ".join(verdict.reason for verdict in verdicts)
        return Verdict(True, reason, sum(verdict.priority for verdict in verdicts))


class TextCharset(SubsetBuilder):
    """Texts of known characters alone, as they stand (not normalised).

    Args:
        charset: all characters that a text may have, such as "abcdefghijklmnopqrstuvwxyz '".
        num_rows: most rows kept; none keeps all.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> TextCharset("abc ").judge(Candidate(0, Utterance("a", (), "a bad cab", 1.0))).keep
        False
    """

    def __init__(self, charset: str, num_rows: int | None = None) -> None:
        super().__init__(num_rows)
        if not charset:
            raise ValueError(
                "TextCharset: the charset is empty; name every character that a text may have"
            )

        self.charset = charset

    def judge(self, candidate: Candidate) -> Verdict:
        if outside(candidate.row.text, self.charset):
            return Verdict(False, "text has a character outside the charset")
        return Verdict(True, "text within the charset")


class TextLength(SubsetBuilder):
    """Texts that are neither too short nor too long.

    Args:
        min_chars: fewest characters, spaces included.
        max_chars: most characters; none: no limit.
        min_words: fewest words (parted by spaces).
        max_words: most words; none: no limit.
        num_rows: most rows kept; none keeps all.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> TextLength(max_words=2).judge(Candidate(0, Utterance("a", (), "one two three", 1.0))).reason
        'text of more than 2 words'
    """

    def __init__(
        self,
        min_chars: int = 1,
        max_chars: int | None = None,
        min_words: int = 1,
        max_words: int | None = None,
        num_rows: int | None = None,
    ) -> None:
        super().__init__(num_rows)
        for unit, low, high in (("chars", min_chars, max_chars), ("words", min_words, max_words)):
            if low < 0 or (high is not None and high < low):
                raise ValueError(
                    f"TextLength: want 0 <= min_{unit} <= max_{unit}; got {low}, {high}"
                )

        self.min_chars = min_chars
        self.max_chars = max_chars
        self.min_words = min_words
        self.max_words = max_words

    def judge(self, candidate: Candidate) -> Verdict:
        num_chars = len(candidate.row.text)
        num_words = len(candidate.row.text.split())
        for unit, number, low, high in (
            ("characters", num_chars, self.min_chars, self.max_chars),
            ("words", num_words, self.min_words, self.max_words),
        ):
            if number < low:
                return Verdict(False, f"text of fewer than {low} {unit}")
            if high is not None and number > high:
                return Verdict(False, f"text of more than {high} {unit}")
        return Verdict(True, f"text of {num_words} words")
