"""Straight, evenly spaced lines in maps of crop cover, found in their Fourier spectrum.

Rows at a spacing d give the spectrum of crop cover a peak at 1 / d across the rows, and smaller
ones at its multiples. By the projection-slice theorem the power along one direction of the spectrum
is the variance of the Radon projection along the rows, so this is the projection method for all
angles at once. The power of many blocks is added, so no line has to run on from block to block.

Sources: row crops by frequency, Wassenaar et al. 2002, Int. J. Remote Sensing 23(17), and Delenne
et al. 2008, IEEE Geosci. Remote Sensing Letters 5(3); added spectra, Welch 1967, IEEE Trans. Audio
Electroacoustics 15(2); error of a frequency, Rife and Boorstyn 1974, IEEE Trans. Inf. Theory 20(5).

Shapes: H W cells of a block, M side of the transform, K frequencies. A frequency is (along columns,
along rows) in cycles per cell, or (east, north) in cycles per metre. `to_metres` is the matrix from
(column, row) in cells to (east, north) in m, (2, 2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CHANCE_SD, _FEW_SD = 5.2, 2.3
"""A peak this many standard deviations high is chance in 1 of 10 million frequencies, or of 100."""
OTHER_DEG = 15.0
"""Directions that differ by more are two directions."""
_MULTIPLES = range(8, 1, -1)
_KEPT_POWER = 0.25
"""A fraction of the strongest frequency is that of the rows if it has so much of the power."""
_NUM_ANGLES = 90


class Peak(NamedTuple):
    """The direction and spacing that stand out most."""

    frequency: Floats
    """Cycles per metre, (2,)."""
    clearness: float
    """Power over the mean power of its spacing without rows."""
    rival: float
    """Power of the strongest other clear direction over that of this one."""
    rival_frequency: Floats


class Lines(NamedTuple):
    """The lines of one block."""

    frequency: Floats
    """Cycles per metre, (2,)."""
    clearness: float
    """As of `Peak`."""
    phase: Floats
    """Place of every cell between two lines, -0.5 to 0.5; 0 on a line, (H, W)."""
    error: float
    """Standard error of the frequency along each axis, cycles per metre."""


def direction_deg(frequency: Floats) -> float:
    """Return where lines of a metric frequency run, degrees clockwise from north, 0-180."""
    return math.degrees(math.atan2(-frequency[1], frequency[0])) % 180


def turned_deg(direction: float, other: float) -> float:
    """Return by how much one direction differs from another, -90 to 90 degrees."""
    return (direction - other + 90) % 180 - 90


def prepare(crop: Floats, valid: Floats) -> Floats:
    """Make a block ready for the transform: mean taken off, edges faded out (Hann).

    Args:
        crop: Crop cover of the valid part of each cell, 0-1, (H, W).
        valid: Valid share of each cell, (H, W).

    Returns:
        (H, W), 0 where nothing is valid.
    """
    fade = [np.sin(math.pi * (np.arange(n) + 0.5) / n) ** 2 for n in crop.shape]
    weight = np.outer(*fade) * valid
    total = float(weight.sum())
    mean = float((weight * crop).sum()) / total if total else 0.0
    return np.asarray(weight * (crop - mean))


class Spectrum:
    """The power of many blocks, added."""

    def __init__(self, side: int) -> None:
        """Start without a block.

        Args:
            side: Side of the transform, M, at least that of every block, cells.
        """
        self._side = side
        self._power = np.zeros((side, side // 2 + 1))
        self._num = 0

    def add(self, block: Floats) -> None:
        """Add a block of `prepare`."""
        self._power += np.abs(np.fft.rfft2(block, (self._side, self._side))) ** 2
        self._num += 1

    def peak(self, to_metres: Floats, side_m: float, spacing_m: tuple[float, float]) -> Peak | None:
        """Find what stands out; None if nothing does.

        Args:
            to_metres: See above.
            side_m: Side of a block.
            spacing_m: Smallest and largest spacing that is looked for.
        """
        cells = np.meshgrid(np.fft.rfftfreq(self._side), np.fft.fftfreq(self._side))
        metric = np.stack(cells, axis=-1) @ np.linalg.inv(to_metres)
        radius = np.hypot(metric[..., 0], metric[..., 1])
        wanted = (radius >= 1 / spacing_m[1]) & (radius <= 1 / spacing_m[0])
        if not self._num or not wanted.any():
            return None
        frequencies, power, radius = metric[wanted], self._power[wanted], radius[wanted]
        clear = power / self._noise(radius, power, side_m)
        chance, few = self._chance(_CHANCE_SD), self._chance(_FEW_SD)
        strongest = best = int(np.argmax(clear))
        if clear[best] < chance:
            return None
        for times in _MULTIPLES:
            gap = np.hypot(*(frequencies - frequencies[strongest] / times).T)
            near = np.flatnonzero((gap < 1 / side_m) & (clear >= few))
            if len(near) and power[near].max() >= _KEPT_POWER * power[strongest]:
                best = int(near[np.argmax(power[near])])
                break
        angles = np.degrees(np.arctan2(-frequencies[:, 1], frequencies[:, 0]))
        away = np.abs((angles - angles[strongest] + 90) % 180 - 90) > OTHER_DEG
        others = np.where(away & (clear >= chance), power, 0)
        other = int(np.argmax(others))
        rival = float(others[other] / power[best])
        return Peak(frequencies[best], float(clear[best]), rival, frequencies[other])

    def _chance(self, deviations: float) -> float:
        """Return how far chance gets over the mean power, see `_noise`."""
        return (1 - 1 / (9 * self._num) + deviations / (3 * math.sqrt(self._num))) ** 3

    def _noise(self, radius: Floats, power: Floats, side_m: float) -> Floats:
        """Return the mean power that frequencies of a radius have without rows, (K,).

        The median over the angles, which a few peaks do not move, made a mean. Chance and its
        median follow the gamma distribution in the form of Wilson and Hilferty 1931.
        """
        step = 0.5 / side_m
        edges = np.arange(radius.min(), radius.max() + step, step)
        ring = np.digitize(radius, edges)
        filled = [i for i in range(1, len(edges) + 1) if (ring == i).any()]
        middles = [float(np.median(power[ring == i])) for i in filled]
        places = edges[np.array(filled) - 1] + step / 2
        floor = np.finfo(np.float64).tiny
        return np.maximum(np.interp(radius, places, middles), floor) / _median(self._num)


def follow(block: Floats, to_metres: Floats, frequency: Floats) -> Lines:
    """Find the lines of a block near those of the whole field.

    Args:
        block: Of `prepare`, (H, W).
        to_metres: See above.
        frequency: Of the field, cycles per metre, (2,).
    """
    middle = frequency @ to_metres
    step = 0.25 / max(block.shape)
    reach = 8
    for _ in range(4):
        offsets = step * np.arange(-reach, reach + 1)
        found = np.abs(_zoom(block, middle[0] + offsets, middle[1] + offsets))
        row, column = np.unravel_index(int(np.argmax(found)), found.shape)
        middle = middle + np.array([offsets[column], offsets[row]])
        step, reach = step / 4, 4
    metric = middle @ np.linalg.inv(to_metres)
    clearness, turn = _clearness(block, to_metres, metric)
    place = np.add.outer(
        np.arange(block.shape[0]) * middle[1], np.arange(block.shape[1]) * middle[0]
    )
    phase = (place + turn + 0.5) % 1 - 0.5
    side_m = math.sqrt(abs(np.linalg.det(to_metres)) * block.size)
    error = math.sqrt(6 / max(clearness, 1)) / (2 * math.pi * side_m)
    return Lines(metric, clearness, np.asarray(phase), error)


def _zoom(block: Floats, columns: Floats, rows: Floats) -> npt.NDArray[np.complex128]:
    """Return the Fourier coefficients on a grid of frequencies, (len(rows), len(columns))."""
    turn = -2j * math.pi
    across = block @ np.exp(turn * np.outer(np.arange(block.shape[1]), columns))
    return np.asarray(np.exp(turn * np.outer(rows, np.arange(block.shape[0]))) @ across)


def _clearness(block: Floats, to_metres: Floats, frequency: Floats) -> tuple[float, float]:
    """Return the clearness of a frequency, and the phase of its crest at cell (0, 0), turns."""
    angles = np.arange(_NUM_ANGLES) * (math.pi / _NUM_ANGLES)
    ring = np.hypot(*frequency) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cells = np.vstack([frequency, ring]) @ to_metres
    turn = -2j * math.pi
    across = block @ np.exp(turn * np.outer(np.arange(block.shape[1]), cells[:, 0]))
    down = np.exp(turn * np.outer(np.arange(block.shape[0]), cells[:, 1]))
    found = (across * down).sum(axis=0)
    power = np.abs(found) ** 2
    noise = max(float(np.median(power[1:])) / _median(1), np.finfo(np.float64).tiny)
    return float(power[0]) / noise, float(np.angle(found[0])) / (2 * math.pi)


def _median(num: int) -> float:
    """Return the median over the mean of `num` added powers of noise."""
    return float((1 - 1 / (9 * num)) ** 3)
