"""One number that makes confidence honest: logits are divided by it (Guo et al. 2017).

The class never changes. Shapes: P pixels, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.errors import FieldDataError

RANGE = (0.1, 10.0)
"""Temperatures beyond this say that something else is wrong."""


def fit_temperature(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Find the temperature under which the truth is most likely.

    Args:
        logits: (P, C).
        truth: Class ids, (P,), all valid.

    Returns:
        temperature; nll_before and nll_after, mean negative log likelihood in nats; pixels.

    Raises:
        FieldDataError: There is no pixel, or the arrays do not fit.
    """
    from scipy.optimize import minimize_scalar

    if not len(truth) or logits.shape[:1] != truth.shape:
        raise FieldDataError(
            f"{len(truth)} pixels of truth for logits of {logits.shape}",
            "as many of both, at least one",
            "label some photos",
        )
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    wanted = np.take_along_axis(shifted, truth.astype(np.int64)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        scaled = math.exp(-log_temperature)
        return float((np.log(np.exp(shifted * scaled).sum(axis=1)) - wanted * scaled).mean())

    bounds = (math.log(RANGE[0]), math.log(RANGE[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return {
        "temperature": round(math.exp(float(found.x)), 4),
        "nll_before": loss(0.0),
        "nll_after": float(found.fun),
        "pixels": len(truth),
    }
