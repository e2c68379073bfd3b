"""`olmes data passrate`: how often a model solves each prompt, and the prompts whose rate lies in a range.

A prompt that is always or never solved teaches nothing in RLVR: all rewards of its group are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from olmes_suite.stats import wilson
from train_plugins.data.curation import prompt_rows
from train_plugins.data.curation.candidates import Verdicts, ask_of, check_verification
from train_plugins.data.curation.generation.completions import Failed
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.generation.session import Session, card, check_models, described
from train_plugins.data.curation.output import Input, Output, Rejected
from train_plugins.data.curation.prompt_rows import BadPrompt, Prompt, PromptSet, as_json
from train_plugins.data.curation.recipe import Curation, Loaded
from train_plugins.data.curation.rows_file import rows_file

if TYPE_CHECKING:
    import pyarrow as pa

OURS = ("id", "source", "row", "messages", "prompt", "dataset", "verifier", "ground_truth")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRateKeys(Curation):
    """Keys of a recipe of `olmes data passrate`."""

    prompts: tuple[PromptSet, ...]
    model: Model
    """The checkpoint that is to be trained, or the model that serves it."""
    samples: int = 8
    above: float | None = 0.0
    """Prompts with this pass rate or a lower one are left out; null: none."""
    below: float | None = 1.0
    """Prompts with this pass rate or a higher one are left out; null: none."""
    least: float = 1.0
    """Verified fraction from which a sample counts as solved."""
    workers: int = 2
    """Processes that verify."""
    timeout: float = 10.0
    """Processor seconds of a verdict."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The pass rate of one prompt."""

    passed: int
    samples: int

    @property
    def value(self) -> float:
        """The share of samples that pass."""
        return self.passed / self.samples

    def columns(self) -> dict[str, Any]:
        """Return the columns of a row, with Wilson's 95 % interval."""
        low, high = wilson(self.passed, self.samples)
        return {
            "passrate": self.value, "passrate_low": low, "passrate_high": high, "passed": self.passed,
            "samples": self.samples,
        }  # fmt: skip


def inputs(recipe: Loaded[PassRateKeys]) -> list[Input]:
    """Check the recipe and hash what it reads. Raises UsageError or MissingData."""
    keys, place = recipe.keys, recipe.place
    check_verification(keys.workers, keys.timeout, place)
    if keys.samples < 1:
        raise UsageError(f"{place.at('samples')}: expected a whole number of at least 1, not {keys.samples}")
    if keys.samples > 1 and keys.model.temperature == 0:
        raise UsageError(
            f"{place.at('model', 'temperature')}: {keys.samples} samples at temperature 0 are all the same"
        )
    if not 0 < keys.least <= 1:
        raise UsageError(f"{place.at('least')}: expected a fraction above 0 and at most 1, not {keys.least:g}")
    low, high = keys.above, keys.below
    if any(bound is not None and not 0 <= bound <= 1 for bound in (low, high)):
        raise UsageError(f"{place.at('above')}, below: expected fractions from 0 to 1, or null")
    if low is not None and high is not None and low >= high:
        raise UsageError(f"{place.at('below')}: above {low:g} and below {high:g} leave no prompt")
    check_models([(("model",), keys.model)], place)  # last: it may ask the Hub
    return prompt_rows.inputs(keys.prompts, place)


def plan(recipe: Loaded[PassRateKeys], found: Sequence[Input]) -> dict[str, Any]:
    """Return what would be asked for."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    verifiable = sum(prompt.verifier is not None for prompt in prompts)
    return {
        "output": str(recipe.output), "prompts": len(prompts), "with a verifier": verifiable, "bad rows": len(bad),
        "model": described(keys.model), "completions": verifiable * keys.samples,
    }  # fmt: skip


def make(recipe: Loaded[PassRateKeys], output: Output) -> dict[str, Any]:
    """Measure the pass rates, write the prompts in the range and return the manifest."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    asked = [prompt for prompt in prompts if prompt.verifier is not None]
    with Verdicts(keys.workers, keys.timeout).started(asked) as verify, Session(output, keys.seed) as session:
        asks = [ask_of(prompt, sample) for prompt in asked for sample in range(keys.samples)]
        responses = session.model(keys.model).complete(asks)
        models = session.spent()
        repeated = [prompt for prompt in asked for _ in range(keys.samples)]
        pairs = [
            (prompt, response.text or "") for prompt, response in zip(repeated, responses, strict=True)
            if not isinstance(response, Failed)
        ]  # fmt: skip
        verdicts = iter(verify(pairs))
    fractions = [None if isinstance(response, Failed) else next(verdicts) for response in responses]
    rates = {
        id(prompt): rate_of(fractions[start : start + keys.samples], keys.least)
        for start, prompt in zip(range(0, len(fractions), keys.samples), asked, strict=True)
    }
    written, spread = 0, [0] * (keys.samples + 1)
    with output.rejected() as rejected, rows_file(output.work, keys.format, _schema()) as file:
        for row in prompt_rows.in_order(keys.prompts, prompts, bad):
            rate = rates.get(id(row))
            reason, detail = _left_out(row, rate, keys)
            if rate is not None:
                spread[round(rate.value * keys.samples)] += 1
            if reason:
                rejected.add(Rejected(row.source, row.row, reason, detail))
            elif isinstance(row, Prompt) and rate is not None:
                file.add({**_row(row), **rate.columns(), "passrate_model": keys.model.called})
                written += 1
    counts = {"unit": "prompts", "read": len(prompts) + len(bad), "written": written}
    return _finish(recipe, output, counts, models, spread)


def rate_of(fractions: Sequence[float | None], least: float) -> Rate | None:
    """Return the pass rate over the samples that were verified; None without any."""
    known = [fraction for fraction in fractions if fraction is not None]
    return Rate(sum(fraction >= least for fraction in known), len(known)) if known else None


def _left_out(row: Prompt | BadPrompt, rate: Rate | None, keys: PassRateKeys) -> tuple[str, str]:
    if isinstance(row, BadPrompt):
        return "bad_row", row.why
    if row.verifier is None:
        return "no_verifier", ""
    if rate is None:
        return "request_failed", "no sample could be verified"
    shown = f"{rate.passed} of {rate.samples} samples pass"
    if keys.above is not None and rate.value <= keys.above:
        return ("never_solved" if rate.passed == 0 else "too_hard"), shown
    if keys.below is not None and rate.value >= keys.below:
        return ("always_solved" if rate.passed == rate.samples else "too_easy"), shown
    return "", ""


def _finish(
    recipe: Loaded[PassRateKeys], output: Output, counts: Mapping[str, Any], models: list[dict[str, Any]],
    spread: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    keys = recipe.keys
    facts = [
        f"Pass rates of {described(keys.model)}, {keys.samples} samples for each prompt; seed {keys.seed}.",
        f"Prompts: {', '.join(one.called for one in keys.prompts)}.",
        f"Kept: above {_bound(keys.above)}, below {_bound(keys.below)}.",
    ]
    table = ["## Pass rates", "", "| samples that pass | prompts |", "|---|---|"]
    table += [f"| {number} of {keys.samples} | {count} |" for number, count in enumerate(spread)]
    shown = {"counts": {**counts, "rejected": dict(sorted(output.reasons.items()))}, "models": models}
    more = {"models": models, "seed": keys.seed, "passrates": list(spread)}
    return output.finish(counts, card("Pass rates", facts, shown, table), more)


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _row(prompt: Prompt) -> dict[str, Any]:
    rest = {key: value for key, value in prompt.columns.items() if key not in OURS}
    return {
        "id": prompt.id, "source": prompt.source, "row": prompt.row,
        "messages": [{"role": role, "content": content} for role, content in prompt.messages],
        "dataset": prompt.dataset, "ground_truth": as_json(prompt.truth),
        "columns": as_json(rest) if rest else None,
    }  # fmt: skip


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    turn = pa.struct([("role", text), ("content", text)])
    return pa.schema([
        ("id", text), ("source", text), ("row", whole), ("messages", pa.list_(turn)), ("dataset", text),
        ("ground_truth", text), ("columns", text), ("passrate", number), ("passrate_low", number),
        ("passrate_high", number), ("passed", whole), ("samples", whole), ("passrate_model", text),
    ])  # fmt: skip
