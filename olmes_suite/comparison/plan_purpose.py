"""Allocations of documents for the purposes of a plan: a precision, a difference to detect, a gate, or a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from olmes_suite import yaml_files
from olmes_suite.comparison import planning
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.plan_facts import of_difference, short
from olmes_suite.comparison.planning import Allocation, Candidate
from olmes_suite.errors import DataError, UsageError
from olmes_suite.runs.schema import read_manifest
from olmes_suite.runs.scores import RunScores
from olmes_suite.stats import normal_quantile
from olmes_suite.wording import points

_LETTERS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


@dataclass(frozen=True, slots=True)
class Prices:
    """The keys of a file of prices: dollars per million tokens."""

    output: float
    input: float = 0.0


def precision(tasks: Sequence[Candidate], points: float) -> Allocation:
    """Plan for an interval of the average of ± `points` points. Raises UsageError if all documents are too few."""
    if not 0 < points < 50:
        raise UsageError(f"--precision must be a half-width above 0 and below 50 points, not {points:g}")
    try:
        return planning.for_error(tasks, points / 100 / normal_quantile(0.975))
    except UsageError as error:
        raise UsageError(f"--precision {points:g} is out of reach: {error}") from None


def detect(tasks: Sequence[Candidate], points: float, power: float, flips: float) -> Allocation:
    """Plan for a paired difference of the averages of `points` points, two-sided at 5 %. Raises UsageError."""
    if not 0 < points < 50:
        raise UsageError(f"--detect must be a difference above 0 and below 50 points, not {points:g}")
    paired = of_difference(tasks, flips)
    stderr = points / 100 / (normal_quantile(0.975) + normal_quantile(_checked(power)))
    try:
        return planning.for_error(paired, stderr)
    except UsageError as error:
        raise UsageError(f"--detect {points:g} is out of reach: the difference over {error}") from None


def gate(
    tasks: Sequence[Candidate], rules: Rules, power: float, flips: float, skills: Mapping[str, str] | None = None
) -> Allocation:
    """Plan for a gate that an unchanged model passes with this power: the average, and every required task on its own.

    The lower bound of a difference of 0 lies above -margin with that power where the standard error is at most margin /
    (z_(1 - alpha) + z_power). A required task that has too few documents for it is asked in full, with a note. Raises
    UsageError where the average has too few. `skills`: task to its skill, for the margins of skills.
    """
    check_tasks(tasks, rules)
    paired = of_difference(tasks, flips)
    distance = normal_quantile(1 - rules.alpha) + normal_quantile(_checked(power))
    notes, planned = [], []
    for task in paired:
        rule = rules.task(task.name)
        if not rule.required or task.whole is not None:
            planned.append(task)
            continue
        margin = max(rules.margin_of(task.name, (skills or {}).get(task.name, "other")), rules.noise_of(task.name))
        least = planning.documents_for(task, margin / distance)
        planned.append(replace(task, least=max(task.least, least)))
        if math.sqrt(task.variance_of(task.bounds[1])) > margin / distance:
            reached = margin / math.sqrt(task.variance_of(task.bounds[1])) - normal_quantile(1 - rules.alpha)
            notes.append(
                f"{short(task.name)} is required and asked in full: it passes in {100 * _normal(reached):.0f} % of the "
                f"gates of an unchanged model, not in {100 * power:.0f} %"
            )
    margin = rules.suite_margin if rules.suite_margin is not None else rules.margin
    try:
        plan = planning.for_error(planned, margin / distance)
    except UsageError as error:
        raise UsageError(
            f"a margin of {points(margin)} of the average is out of reach with power {power:g}: the difference "
            f"over {error}"
        ) from None
    return replace(plan, notes=tuple(notes))


def check_tasks(tasks: Sequence[Candidate], rules: Rules) -> None:
    """Raise UsageError for rules of a task that is not planned."""
    names = {task.name for task in tasks} | {short(task.name) for task in tasks}
    if unknown := [name for name in rules.tasks if name not in names]:
        raise UsageError(f"the gate names the task {unknown[0]}, which is not in the suite")


def _normal(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(z))


def _checked(power: float) -> float:
    if not 0.5 <= power < 1:
        raise UsageError(f"--power must lie between 0.5 and 1, not {power:g}")
    return power


def number(text: str, option: str) -> float:
    """Read a positive number such as 250000, 20M or 1.5k. Raises UsageError."""
    factor = _LETTERS.get(text[-1:].lower(), 1.0)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{option} {text}: expected a number above 0, such as 250000 or 20M")
    return value


def tokens_of_hours(hours: float, baseline: RunScores | None) -> float:
    """Return the tokens that the baseline's engine generated in so many hours. Raises UsageError without its times."""
    if not hours > 0 or not math.isfinite(hours):
        raise UsageError(f"--hours must be above 0, not {hours:g}")
    seconds, _, generated = _totals(baseline, "--hours")
    return hours * 3600 * generated / seconds


def tokens_of_dollars(dollars: float, prices: Prices, baseline: RunScores | None) -> float:
    """Return the generated tokens for this price. Raises UsageError where no run counts the tokens of prompts."""
    if not dollars > 0 or not math.isfinite(dollars):
        raise UsageError(f"--dollars must be above 0, not {dollars:g}")
    price = prices.output
    if prices.input:
        _, prompts, generated = _totals(baseline, "a price of prompts")
        price += prices.input * prompts / generated
    if price <= 0:
        raise UsageError("--model-cost: the price of a million generated tokens must be above 0")
    return dollars / price * 1e6


def read_prices(text: str) -> Prices:
    """Read `--model-cost`: dollars per million generated tokens, or a file of `Prices`. Raises UsageError."""
    try:
        prices = Prices(float(text))
    except ValueError:
        file = yaml_files.read(Path(text), "prices")
        prices = yaml_files.typed(Prices, file.data, file.place)
    if not all(math.isfinite(price) and price >= 0 for price in (prices.output, prices.input)):
        raise UsageError(f"--model-cost {text}: prices must be numbers from 0 on, in dollars per million tokens")
    return prices


def _totals(baseline: RunScores | None, option: str) -> tuple[float, int, int]:
    """Return the seconds, the prompt tokens and the generated tokens of a run."""
    if baseline is None or baseline.path is None:
        raise UsageError(f"{option} needs --baseline RUN, a run's folder: its tokens and seconds give the rate")
    record = read_manifest(baseline.path)
    seconds, counted = (record.time.seconds if record.time else None) or 0.0, record.tokens or {}
    if seconds <= 0 or not counted.get("completion"):
        raise DataError(f"{baseline.name} does not record its time and generated tokens, which {option} needs")
    return seconds, counted.get("prompt", 0), counted["completion"]
