"""Error spending: the levels at which one hypothesis may be tested again and again. Pure functions.

A hypothesis spends its error rate over the looks as α t^1.5, where t is the share of the information that all documents
give (Kim & DeMets 1987, Biometrika 74, 149; Lan & DeMets 1983, Biometrika 70, 659). The looks need not be fixed in
advance.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from olmes_suite.stats import Floats

POWER = 1.5
"""Exponent of the spending: 1 spends evenly, 3 almost all at the end."""
_GRID: Floats = np.linspace(-8.0, 8.0, 801)
_WIDTH = float(_GRID[1] - _GRID[0])


class Spending:
    """The one-sided levels of one hypothesis, look by look, by recursive integration.

    Armitage, McPherson & Rowe 1969 (J. R. Stat. Soc. A 132, 235): the density of the score process among the runs that
    have not crossed a bound is carried from look to look.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._times: tuple[float, ...] = ()

    def at(self, time: float) -> float:
        """Return the nominal one-sided level of a look at the information share `time`; 0 where nothing was added."""
        time = min(max(time, 1e-6), 1.0)
        if time - (self._times[-1] if self._times else 0.0) < 1e-4:
            return 0.0
        self._times = (*self._times, time)
        return _look(self.alpha, self._times)[0]


@lru_cache(maxsize=512)
def _look(alpha: float, times: tuple[float, ...]) -> tuple[float, float, Floats]:
    """Return the level of the last look, the error rate spent so far, and the density of the runs that go on."""
    time, spent = times[-1], 0.0
    if len(times) == 1:
        density = np.exp(-(_GRID**2) / (2 * time)) / math.sqrt(2 * math.pi * time)
    else:
        _, spent, before = _look(alpha, times[:-1])
        step = time - times[-2]
        reach = min(len(_GRID) // 2, math.ceil(7 * math.sqrt(step) / _WIDTH))
        kernel = np.exp(-((np.arange(-reach, reach + 1) * _WIDTH) ** 2) / (2 * step))
        density = np.convolve(before, kernel / kernel.sum(), mode="same")
    above = (np.cumsum(density[::-1])[::-1] - density / 2) * _WIDTH  # the trapezoid rule
    spend = alpha * time**POWER - spent
    place = int(np.searchsorted(-above, -spend))  # `above` falls: the first point with at most so much above it
    place = min(max(place, 1), len(_GRID) - 1)
    near = slice(place - 1, place + 1)
    bound = float(np.interp(-math.log(spend), -np.log(above[near] + 1e-300), _GRID[near]))
    going_on = density * np.clip((bound - _GRID) / _WIDTH + 0.5, 0.0, 1.0)
    return float(ndtr(-bound / math.sqrt(time))), spent + spend, going_on
