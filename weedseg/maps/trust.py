"""What is known of a model's accuracy on the crop of this field, and what follows for areas.

Everything comes from the metadata of the model: nothing is assumed where nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MIN_PHOTOS = 5
"""Fewer held-out photos say nothing of the error of an area."""
Z95 = 1.959964
UNTESTED = "untested on this crop"


@dataclass(frozen=True, kw_only=True)
class RoleBias:
    """How far predicted cover was from true cover on held-out photos; shares, 0-1."""

    bias: float
    """Mean of predicted minus true."""
    rmse: float
    """Root of the mean squared difference, of one photo."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """An area with what is known of its error, m2."""

    predicted_m2: float
    """Sum over pixels as the model labels them."""
    corrected_m2: float | None
    """Less the model's measured bias, at least 0; None: nothing was measured on this crop."""
    low_m2: float | None
    """Lower end of the 95 % interval of the corrected area."""
    high_m2: float | None


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What was measured of the model on the crop that grows here."""

    evaluated: bool
    """Whether it was evaluated on this crop."""
    note: str
    """One sentence for people; begins with `UNTESTED` when it was not."""
    num_photos: int = 0
    """Held-out photos behind the figures."""
    weed: RoleBias | None = None
    crop: RoleBias | None = None
    false_weed_share: float | None = None
    """Weed cover that the model sees where there is none, 0-1; None is unknown."""
    false_weed_basis: str = ""
    """What that was measured on."""

    def area(self, predicted_m2: float, ground_m2: float, role: str) -> Area:
        """Correct an area for the measured bias and say how sure that is.

        The bias is a mean over `num_photos` photos, so its standard error is
        sqrt((rmse² - bias²) / (num_photos - 1)), and Student's t says how far it may be off; it is
        the same for all of a field, so it does not average out. Differences of single places do
        in a field of many photos' size, and are left out.

        Args:
            predicted_m2: Area as predicted, m2.
            ground_m2: Ground that was looked at, m2.
            role: weed or crop.
        """
        known = self.weed if role == "weed" else self.crop
        if not self.evaluated or known is None or self.num_photos < MIN_PHOTOS:
            return Area(predicted_m2=predicted_m2, corrected_m2=None, low_m2=None, high_m2=None)
        spread = math.sqrt(max(known.rmse**2 - known.bias**2, 0) / (self.num_photos - 1))
        middle = predicted_m2 - known.bias * ground_m2
        reach = _t95(self.num_photos - 1) * spread * ground_m2
        low, mid, high = (
            min(max(v, 0.0), ground_m2) for v in (middle - reach, middle, middle + reach)
        )
        return Area(predicted_m2=predicted_m2, corrected_m2=mid, low_m2=low, high_m2=high)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def _t95(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, within 0.3 % for 4 degrees of freedom or more.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees) ** i for i, term in enumerate(terms, start=1))


def trust_from_dict(values: Mapping[str, Any]) -> Trust:
    """Undo `Trust.to_dict`."""
    roles = {r: RoleBias(**values[r]) if values.get(r) else None for r in ("weed", "crop")}
    return Trust(**{**values, **roles})


def trust_in(properties: Mapping[str, Any], crop: str) -> Trust:
    """Read from a model's metadata what is known for a crop.

    Args:
        properties: ``ModelMetadata.properties``.
        crop: Crop that grows on the field, as the user names it; '' is unknown.
    """
    metrics = properties.get("metrics")
    if not isinstance(metrics, Mapping) or not isinstance(metrics.get("miou"), float):
        return Trust(evaluated=False, note=f"{UNTESTED}: this model was never evaluated")
    crops = [str(name) for name in metrics.get("crops") or []]
    if crop.strip().casefold() not in {name.casefold() for name in crops}:
        known = ", ".join(crops) or "a crop that its file does not name"
        here = f"here grows {crop}" if crop else "which crop grows here was not said"
        return Trust(
            evaluated=False, note=f"{UNTESTED}: {here}, the model was evaluated on {known}"
        )
    cover = metrics.get("cover") or {}
    found = metrics.get("false_weed") or {}
    basis = str(properties.get("evaluation_note") or "on its own data")
    return Trust(
        evaluated=True,
        note=(
            f"evaluated on {metrics['num_photos']} held-out photos of {crop} ({basis}), never on "
            "this field"
        ),
        num_photos=int(metrics["num_photos"]),
        weed=_role_bias(cover.get("weed")),
        crop=_role_bias(cover.get("crop")),
        false_weed_share=found.get("share"),
        false_weed_basis=str(found.get("basis") or ""),
    )


def _role_bias(values: Any) -> RoleBias | None:
    if not isinstance(values, Mapping) or values.get("bias") is None:
        return None
    return RoleBias(bias=float(values["bias"]), rmse=float(values["rmse"]))
