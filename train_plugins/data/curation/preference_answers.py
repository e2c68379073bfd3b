"""The answers from which preference pairs are made: who answers which prompt, how often, and what is left of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from olmes_suite.records import canonical_json, sha256
from train_plugins.data.curation import constraint_draws
from train_plugins.data.curation.candidates import Candidate, ask_of, of_response
from train_plugins.data.curation.constraint_draws import Drawn
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.generation.session import Session
from train_plugins.data.curation.preference_keys import PreferenceKeys
from train_plugins.data.curation.prompt_rows import Prompt
from train_plugins.data.curation.text_filters import TextFilters

ANYTHING = TextFilters(repetition=False, refusal=False, meta=False)
"""Filters of rejected answers of delta pairs: only empty ones and loose marks of thoughts are left out."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A prompt and the models that answer it, with the number of each answer."""

    prompt: Prompt
    answers: tuple[tuple[Model, int], ...]


def drawn_share(prompts: Sequence[Prompt], share: float, seed: int, what: str) -> frozenset[int]:
    """Return the numbers of a share of the prompts: those with the smallest hashes of content and seed."""
    hashes = [sha256(canonical_json([seed, what, prompt.messages, prompt.source, prompt.row])) for prompt in prompts]
    order = sorted(range(len(prompts)), key=hashes.__getitem__)
    return frozenset(order[: round(share * len(prompts))])


def with_constraints(prompts: Sequence[Prompt], keys: PreferenceKeys) -> list[Prompt]:
    """Return the prompts, of which the recipe's share has constraints added to the last user turn."""
    added = keys.add_constraints
    if not added.share:
        return list(prompts)
    found = constraint_draws.load(added.path)
    plain = [prompt for prompt in prompts if prompt.verifier is None]
    numbers = drawn_share(plain, added.share, keys.seed, "constraints")
    chosen = {id(plain[number]) for number in numbers}
    return [_constrained(prompt, keys, found) if id(prompt) in chosen else prompt for prompt in prompts]


def _constrained(prompt: Prompt, keys: PreferenceKeys, found: constraint_draws.Constraints) -> Prompt:
    rng = random.Random(sha256(canonical_json([keys.seed, "draw", prompt.messages])))
    least, most = keys.add_constraints.count
    drawn = constraint_draws.draw(found, rng.randint(least, most), rng, prompt.text)
    return constrained_by(prompt, prompt.text, drawn)


def constrained_by(prompt: Prompt, task: str, drawn: Sequence[Drawn]) -> Prompt:
    """Return the prompt whose last turn is the task with these constraints, which its verifier checks."""
    last = ("user", constraint_draws.prompt(task, drawn))
    columns = {
        **prompt.columns, "task": task, "constraints": json.dumps([one.as_json() for one in drawn], ensure_ascii=False)
    }  # fmt: skip
    return replace(
        prompt, messages=(*prompt.messages[:-1], last), verifier="ifeval" if drawn else None,
        truth=constraint_draws.truth(drawn) if drawn else None, columns=columns,
    )  # fmt: skip


def relaxed(prompt: Prompt, seed: int) -> Prompt | None:
    """Return the prompt without one of its constraints, drawn; None where it has fewer than two."""
    task, text = prompt.columns.get("task"), prompt.columns.get("constraints")
    try:
        rows: Any = json.loads(text) if isinstance(text, str) else text
        drawn = [Drawn(str(one["id"]), dict(one["kwargs"]), str(one["text"])) for one in rows or ()]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(task, str) or len(drawn) < 2:
        return None
    rng = random.Random(sha256(canonical_json([seed, "relax", prompt.messages])))
    left_out = rng.randrange(len(drawn))
    return constrained_by(prompt, task, [one for number, one in enumerate(drawn) if number != left_out])


def assigned(prompts: Sequence[Prompt], keys: PreferenceKeys) -> list[Assigned]:
    """Return who answers each prompt: the policy where the prompt is on-policy, and models drawn from the pool."""
    share = keys.on_policy if keys.pool else 1.0
    numbers = drawn_share(prompts, share if keys.policy is not None else 0.0, keys.seed, "on-policy")
    found = []
    for number, prompt in enumerate(prompts):
        rng = random.Random(sha256(canonical_json([keys.seed, "pool", prompt.messages, prompt.row])))
        models: list[Model] = []
        if number in numbers and keys.policy is not None:
            models = [keys.policy] * (keys.policy_completions if keys.pool else keys.completions)
        while len(models) < keys.completions:
            models += rng.sample(list(keys.pool), min(len(keys.pool), keys.completions - len(models)))
        counted: list[tuple[Model, int]] = []
        for model in models:
            counted.append((model, sum(other.called == model.called for other, _ in counted)))
        found.append(Assigned(prompt, tuple(counted)))
    return found


def answered(plans: Sequence[Assigned], session: Session, filters: Mapping[str, TextFilters] | TextFilters
) -> list[list[Candidate]]:  # fmt: skip
    """Return the answers to each prompt in the order of its plan; `filters` may differ by the model's name."""
    found: list[dict[int, Candidate]] = [{} for _ in plans]
    by_model: dict[str, tuple[Model, list[tuple[int, int, int]]]] = {}
    for number, one in enumerate(plans):
        for place, (model, sample) in enumerate(one.answers):
            by_model.setdefault(model.called, (model, []))[1].append((number, place, sample))
    for name, (model, places) in by_model.items():
        asks = [ask_of(plans[number].prompt, sample) for number, _, sample in places]
        chosen = filters if isinstance(filters, TextFilters) else filters[name]
        for (number, place, sample), response in zip(places, session.model(model).complete(asks), strict=True):
            found[number][place] = of_response(response, name, sample, chosen)
    return [[one[place] for place in sorted(one)] for one in found]


def usable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the answers without a fault, and of equal texts the first."""
    texts: set[str] = set()
    found = []
    for one in candidates:
        if one.fault is None and one.text not in texts:
            texts.add(one.text)
            found.append(one)
    return found
