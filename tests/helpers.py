"""What tests share: the only place where tolerances are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Tolerance = Literal["exact", "float64", "float32", "policy"]

#: name -> (relative, absolute): bit for bit; the same maths in another order; one model computed along two ways.
TOLERANCES: dict[Tolerance, tuple[float, float]] = {
    "exact": (0.0, 0.0),
    "float64": (1e-9, 1e-12),
    "float32": (1e-5, 1e-6),
    "policy": (0.0, 1e-4),
}

#: Largest relative norm of the difference between gradients that two ways of computing them may show in float32.
GRADIENT_RELATIVE_NORM = 1e-5


def assert_close(
    actual: Tensor | float, expected: Tensor | float | list, tolerance: Tolerance = "float32"
) -> None:
    """Equal within the named tolerance; -inf equals -inf, NaN equals nothing. Shapes must agree."""
    actual = torch.as_tensor(actual)
    expected = torch.as_tensor(expected, dtype=actual.dtype, device=actual.device)
    rtol, atol = TOLERANCES[tolerance]
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=False)


def assert_gradients_close(
    actual: Tensor, expected: Tensor, relative_norm: float = GRADIENT_RELATIVE_NORM
) -> None:
    """The difference's norm is at most ``relative_norm`` of the expected gradient's, which is not zero."""
    norm = expected.norm()
    assert norm > 0, "the expected gradient is zero: this compares nothing"
    assert (actual - expected).norm() <= relative_norm * norm, (
        f"{(actual - expected).norm() / norm:.3g} apart"
    )


def gradient_rounding(gradients: Iterable[Tensor]) -> float:
    """A norm below which a gradient of one step is 0 but for rounding, such as that of what adds one number to every
    score of an attention."""
    norms = [(float(gradient.norm()), torch.finfo(gradient.dtype).eps) for gradient in gradients]
    largest, eps = max(norms)
    return 10 * eps * largest
