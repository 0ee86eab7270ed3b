"""What TensorBoard shows first, and which curves it gets even where they do not change."""

from __future__ import annotations

import re

from lightning_audiorl.metrics.specs import evaluation_spec

#: The charts of TensorBoard's custom scalars, and the tags in each, as patterns.
CHARTS = {
    "error rates of the sets": [r"^val/.*/(wer|cer|held_out_cer)$"],
    "reward": [r"^reward/mean$"],
    "KL to the start": [r"^kl$"],
    "tokens per sample": [r"^length/(mean|max)$"],
    "groups from which nothing is learnt": [r"^(zero_variance|nothing_right)_share$"],
}


def is_always_drawn(log_key: str) -> bool:
    """Whether a curve is worth drawing where its value stays the same.

    Those of the first charts are, the loss, which supervised training has in their place, and results: metrics of a set
    that can get better or worse.

    Example:
        >>> is_always_drawn("reward/mean"), is_always_drawn("val/dev/wer")
        (True, True)
        >>> is_always_drawn("lr"), is_always_drawn("val/dev/num_utterances")
        (False, False)
    """
    if log_key.startswith(("val/", "test/")):
        return evaluation_spec(log_key).better is not None
    if log_key == "loss":
        return True
    patterns = [pattern for of_chart in CHARTS.values() for pattern in of_chart]
    return any(re.search(pattern, log_key) for pattern in patterns)
