"""Length-controlled win rate: the win rate expected if the outputs were as long as the baseline's.

Dubois et al. 2024 (arXiv 2404.04475), as `alpaca_eval` 0.6.6 computes it (`length_controlled_v1`): a regression of
the preference on tanh of the standardised difference of lengths, on the instruction's difficulty and on a constant,
without intercept, with an L1 penalty whose strength five-fold cross-validation chooses. The fit also sees, with a
weight of 0.1 each, two baselines instructed to be brief or verbose (`df_gamed.csv` of the data set
`tatsu-lab/alpaca_eval`, which also has the difficulties). Without that file the difficulty and the two baselines are
left out, which is alpaca_eval's `length_controlled_minimal`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmes_suite.errors import DataError
from olmes_suite.records import sha256
from olmes_suite.scoring.tools import ToolOptions

DATA_SET, FILE = "tatsu-lab/alpaca_eval", "df_gamed.csv"
COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")
GAMED_WEIGHT = 0.2 / 2
"""`regularize_to_baseline_lambda` 0.2, divided by the number of gamed baselines."""
STRENGTHS = np.logspace(-4, 4, 10)
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Gamed:
    """The annotations of the gamed baselines."""

    preference: np.ndarray
    """[rows], from 0 (the baseline) to 1."""
    std_delta_len: np.ndarray
    """[rows], baseline's length less the gamed one's, standardised."""
    difficulty: np.ndarray
    """[rows], difficulty of each row's instruction."""
    by_instruction: Mapping[int, float]
    """Row of the evaluation split to difficulty."""


@dataclass(slots=True)
class LengthControl:
    """The regression that the available files allow."""

    gamed: Gamed | None
    digest: str | None = None
    path: str | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def glm(self) -> str:
        """The name of the regression in alpaca_eval."""
        return "length_controlled_v1" if self.gamed is not None else "length_controlled_minimal"

    @property
    def fingerprint(self) -> str:
        """Part of the scorer's fingerprint, because the two regressions give different numbers."""
        return sha256(f"{self.glm} {self.digest}")

    def record(self) -> dict[str, Any]:
        """Describe the regression for the manifest."""
        return {"glm": self.glm, "file": self.path, "sha256": self.digest}

    def notes(self) -> list[str]:
        """Return lines for the user about the regression."""
        return self.lines


def build(options: ToolOptions) -> LengthControl:
    """Load the gamed baselines from a mirror, otherwise from the Hub; sample documents do not use them."""
    if options.sample:
        return LengthControl(None)
    for mirror in options.mirrors:
        if (path := mirror / DATA_SET / FILE).is_file():
            return _from(path)
    if (file := _fetch()) is not None:
        return _from(file)
    advice = f"length-controlled win rate without {FILE} of {DATA_SET}: put it at D/{DATA_SET}/{FILE} of a mirror D"
    return LengthControl(None, lines=[f"{advice} for numbers that compare with published ones"])


def _from(path: Path) -> LengthControl:
    return LengthControl(read_gamed(path), sha256(path.read_bytes()), str(path))


def _fetch() -> Path | None:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(DATA_SET, FILE, repo_type="dataset"))
    except Exception:  # the Hub's client raises many types, which all mean that the file is unavailable
        return None


def read_gamed(path: Path) -> Gamed:
    """Read `df_gamed.csv`. Raises DataError if columns are missing or values are not numbers."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = [[float(row[column]) for column in COLUMNS] for row in csv.DictReader(handle)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not the gamed annotations of alpaca_eval ({error!r})") from error
    if not rows:
        raise DataError(f"{path}: has no rows")
    index, preference, delta, difficulty = np.asarray(rows).T
    known: dict[int, float] = {}
    for instruction, value in zip(index, difficulty, strict=True):
        known.setdefault(int(instruction), float(value))
    return Gamed(preference, delta, difficulty, known)


@dataclass(frozen=True, slots=True)
class Controlled:
    """The regression's results by document; the mean of both lists is the length-controlled win rate."""

    predicted: list[float]
    """Preference for the candidate if both outputs were equally long, from 0 to 1. alpaca_eval's `lc_standard_error` is
    the standard error of these values; it ignores the judge's disagreement with the regression."""
    scores: list[float]
    """The prediction plus the centred residual, possibly outside [0, 1]. Their standard error is that of the
    length-controlled win rate, and their differences between two models are meaningful by document."""


def controlled(
    preferences: Sequence[float | None],
    lengths: Sequence[int],
    baseline_lengths: Sequence[int],
    instructions: Sequence[int],
    gamed: Gamed | None = None,
) -> Controlled:
    """Remove the effect of the difference of lengths from the preferences for the candidate.

    `preferences` are from 0 to 1, None without a verdict (such a document is predicted, not fitted); `lengths`
    are in characters; `instructions` are rows of the evaluation split. Raises DataError for an instruction without a
    difficulty, ValueError if no document has a preference. With fewer than five documents the result is the mean
    preference.
    """
    judged = np.array([preference is not None for preference in preferences])
    if not judged.any():
        raise ValueError("a regression needs at least one preference")
    target_values = np.array([0.5 if preference is None else preference for preference in preferences])
    features, neutral = _features(lengths, baseline_lengths, instructions, gamed)
    rows, target, weight = features[judged], target_values[judged], np.ones(int(judged.sum()))
    if gamed is not None:
        gamed_rows = np.column_stack([np.tanh(gamed.std_delta_len), gamed.difficulty, np.zeros(len(gamed.preference))])
        rows, target = np.vstack([gamed_rows, rows]), np.concatenate([gamed.preference, target])
        weight = np.concatenate([np.full(len(gamed_rows), GAMED_WEIGHT), weight])
    coefficients = fit(rows, target, weight)
    predicted = _sigmoid(neutral @ coefficients)
    residuals = np.where(judged, target_values - _sigmoid(features @ coefficients), 0.0)
    residuals[judged] -= residuals[judged].mean()
    return Controlled(predicted.tolist(), (predicted + residuals).tolist())


def _features(
    lengths: Sequence[int], baseline_lengths: Sequence[int], instructions: Sequence[int], gamed: Gamed | None
) -> tuple[np.ndarray, np.ndarray]:
    """Build the features, [documents, features], as observed and with the difference of lengths set to 0.

    With fewer than five documents the difference is 0 in both.
    """
    delta = np.asarray(baseline_lengths, dtype=float) - np.asarray(lengths, dtype=float)
    spread = float(delta.std(ddof=1)) if len(delta) >= FOLDS else 0.0
    columns = [np.tanh(delta / spread) if spread else np.zeros(len(delta))]
    if gamed is not None:
        if unknown := [i for i in instructions if i not in gamed.by_instruction]:
            raise DataError(f"{FILE} has no difficulty of instruction {unknown[0]}")
        columns.append(np.array([gamed.by_instruction[i] for i in instructions]))
    features = np.column_stack([*columns, np.ones(len(delta))])
    neutral = features.copy()
    neutral[:, 0] = 0.0
    return features, neutral


def fit(features: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit the penalised logistic regression; cross-validation by log loss chooses the penalty.

    The folds are those of scikit-learn's GroupKFold over documents, assigned in turn from the last document.
    """
    n = len(features)
    if n < FOLDS:
        return _penalised(features, target, weight, STRENGTHS[-1])
    folds = (n - 1 - np.arange(n)) % FOLDS
    losses = np.zeros(len(STRENGTHS))
    for number, strength in enumerate(STRENGTHS):
        for fold in range(FOLDS):
            held_out = folds == fold
            coefficients = _penalised(features[~held_out], target[~held_out], weight[~held_out], strength)
            predicted = np.clip(_sigmoid(features[held_out] @ coefficients), 1e-15, 1 - 1e-15)
            loss = target[held_out] * np.log(predicted) + (1 - target[held_out]) * np.log(1 - predicted)
            losses[number] -= float(np.mean(weight[held_out] * loss))
    return _penalised(features, target, weight, STRENGTHS[int(losses.argmin())])


def _penalised(features: np.ndarray, target: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """Minimise |w|_1 + strength * weighted log loss, with w as a difference of two vectors that are not negative."""
    from scipy.optimize import minimize

    scale = 1.0 + strength * float(weight.sum())
    size = features.shape[1]

    def objective(parts: np.ndarray) -> tuple[float, np.ndarray]:
        score = features @ (parts[:size] - parts[size:])
        loss = float(weight @ (np.logaddexp(0.0, score) - target * score))
        slope = strength * (features.T @ (weight * (_sigmoid(score) - target)))
        return (
            (float(parts.sum()) + strength * loss) / scale,
            np.concatenate([1.0 + slope, 1.0 - slope]) / scale,
        )

    solution = minimize(
        objective, np.zeros(2 * size), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * (2 * size),
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )  # fmt: skip
    return solution.x[:size] - solution.x[size:]


def _sigmoid(score: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -score))
