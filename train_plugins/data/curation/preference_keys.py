"""The recipe of `olmes data preferences`, and its checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from olmes_suite.errors import UsageError, nearest
from olmes_suite.yaml_files import Place
from train_plugins.data.curation import constraint_draws, text_filters
from train_plugins.data.curation.candidates import check_verification
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.generation.session import check_models, check_names
from train_plugins.data.curation.pairs import Rule
from train_plugins.data.curation.prompt_rows import PromptSet
from train_plugins.data.curation.ratings import aspects
from train_plugins.data.curation.recipe import Curation, Loaded
from train_plugins.data.curation.text_filters import TextFilters

By = Literal["judge", "verifier", "delta", "relaxed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeModel(Model):
    """Keys under `judge`: a model, by default at temperature 0."""

    temperature: float = 0.0
    aspects: tuple[str, ...] = ("helpfulness", "instruction_following", "honesty", "truthfulness")
    tries: int = 7
    asked: int = 3
    """Times that a judge is asked for one aspect until its answer has a rating for each text."""
    repeat: float = 0.1
    """Share of the prompts that are rated twice, in another order, to measure the judge's agreement with itself."""
    example: bool | None = None  # without a value not in the resolved recipe: those of earlier versions stay equal
    """Whether each request starts with a rated example, from which a small judge learns the form of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedConstraints:
    """Keys under `add_constraints`: prompts that get verifiable constraints."""

    share: float = 0.0
    """Share of the prompts."""
    count: tuple[int, ...] = (1, 3)
    """Fewest and most constraints."""
    file: str | None = None
    """A user's file of constraints."""

    @property
    def path(self) -> Path:
        """The file of constraints."""
        return Path(self.file).expanduser() if self.file else constraint_draws.SHIPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceKeys(Curation):
    """Keys of a recipe of `olmes data preferences`."""

    prompts: tuple[PromptSet, ...]
    by: By = "judge"
    """judge: ratings; verifier: verified answers are chosen, others rejected; delta: a strong model's answer is chosen,
    a weak model's rejected; relaxed: the answer to the prompt without one of its constraints is rejected."""
    policy: Model | None = None
    """The model that is to be trained."""
    pool: tuple[Model, ...] = ()
    """Other models that answer."""
    strong: Model | None = None
    weak: Model | None = None
    completions: int = 4
    """Answers to each prompt."""
    on_policy: float = 0.5
    """Share of the prompts that the policy answers too."""
    policy_completions: int = 1
    """Answers of the policy to such a prompt; the rest comes from the pool. Without a pool all come from the policy."""
    policy_side: bool = True
    """Whether one side of an on-policy pair has to be the policy's answer."""
    judge: JudgeModel | None = None
    rejected: Rule = "random_lower"
    """Which answer is rejected: random_lower, any with a lower score (Tülu 3); worst, the lowest (OLMo 3)."""
    margin: float = 0.0
    """Least difference of the scores of a pair: mean ratings from 1 to 5, or verified fractions."""
    length_ratio: float | None = None
    """The longer side of a pair has at most so many times the words of the shorter one; null: any length."""
    add_constraints: AddedConstraints = field(default_factory=AddedConstraints)
    filters: TextFilters = field(default_factory=TextFilters)
    """Which answers are left out; with `delta`, which chosen ones."""
    workers: int = 2
    """Processes that verify."""
    timeout: float = 10.0
    """Processor seconds of a verdict."""

    def models(self) -> Iterator[tuple[tuple[str | int, ...], Model]]:
        """Yield the models that answer, by the path of their keys."""
        used = ("strong", "weak") if self.by == "delta" else ("policy",)
        for name in used:
            model: Model | None = getattr(self, name)
            if model is not None:
                yield (name,), model
        if self.by != "delta":
            yield from ((("pool", number), model) for number, model in enumerate(self.pool))


def check(recipe: Loaded[PreferenceKeys]) -> None:
    """Check a recipe before anything is read or asked. Raises UsageError that names the key."""
    keys, place = recipe.keys, recipe.place
    _check_models(keys, place)
    _check_numbers(keys, place)
    text_filters.check(keys.filters, place.inside("filters"))
    check_verification(keys.workers, keys.timeout, place)
    if keys.add_constraints.share:
        constraint_draws.check_file(keys.add_constraints.path, place.at("add_constraints", "file"))
    judge = [(("judge",), keys.judge)] if keys.judge is not None else []
    check_models([*keys.models(), *judge], place)  # last: it may ask the Hub


def _check_models(keys: PreferenceKeys, place: Place) -> None:
    if keys.by == "delta" and (keys.strong is None or keys.weak is None):
        raise UsageError(f"{place.at('by')}: delta needs the models `strong` and `weak`")
    named = list(keys.models())
    if not named:
        raise UsageError(f"{place}: name the models that answer: `policy`, `pool` or both")
    if keys.by == "judge" and keys.judge is None:
        others = "verifier, delta or relaxed"
        raise UsageError(f"{place.at('by')}: judge needs the model `judge`; without one, use by: {others}")
    check_names(named, place)
    if keys.judge is not None:
        for name in keys.judge.aspects:
            if name not in aspects():
                known = ", ".join(aspects())
                why = f"unknown {name!r}{nearest(name, aspects())}; known: {known}"
                raise UsageError(f"{place.at('judge', 'aspects')}: {why}")
        if not keys.judge.aspects or len(set(keys.judge.aspects)) < len(keys.judge.aspects):
            raise UsageError(f"{place.at('judge', 'aspects')}: expected at least one, each once")
        if keys.judge.asked < 1:
            where = place.at("judge", "asked")
            raise UsageError(f"{where}: expected a whole number of at least 1, not {keys.judge.asked}")


def _check_numbers(keys: PreferenceKeys, place: Place) -> None:
    repeat = keys.judge.repeat if keys.judge is not None else 0.0
    added = keys.add_constraints.share
    shares = {("on_policy",): keys.on_policy, ("add_constraints", "share"): added, ("judge", "repeat"): repeat}
    for path, share in shares.items():
        if not 0 <= share <= 1:
            raise UsageError(f"{place.at(*path)}: expected a fraction from 0 to 1, not {share:g}")
    if keys.completions < 2:
        raise UsageError(f"{place.at('completions')}: a pair takes at least 2, not {keys.completions}")
    if not 1 <= keys.policy_completions <= keys.completions:
        raise UsageError(f"{place.at('policy_completions')}: expected from 1 to {keys.completions} (`completions`)")
    if not 0 <= keys.margin < math.inf:
        raise UsageError(f"{place.at('margin')}: expected a number of at least 0, not {keys.margin:g}")
    if keys.length_ratio is not None and not 1 <= keys.length_ratio < math.inf:
        raise UsageError(f"{place.at('length_ratio')}: expected a number of at least 1, not {keys.length_ratio:g}")
    count = keys.add_constraints.count
    if len(count) != 2 or not 1 <= count[0] <= count[1]:
        raise UsageError(f"{place.at('add_constraints', 'count')}: expected the fewest and the most, such as [1, 3]")
    if keys.by in ("judge", "verifier"):
        alone = [model for _, model in keys.models()]
        if len(alone) == 1 and alone[0].temperature == 0:
            where = place.at(*next(path for path, _ in keys.models()))
            raise UsageError(f"{where}: all answers of one model at temperature 0 are the same; raise its temperature")
