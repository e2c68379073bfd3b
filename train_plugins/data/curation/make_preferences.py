"""`olmes data preferences`: pairs of answers, by a judge, by a verifier, or better by how they were made."""

from __future__ import annotations

import json
import random
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from olmes_suite.records import canonical_json, sha256
from train_plugins.data.curation import prompt_rows, rating_checks, ratings
from train_plugins.data.curation.candidates import Candidate, Verdicts
from train_plugins.data.curation.constraint_draws import SHIPPED
from train_plugins.data.curation.generation.session import Session, card, described
from train_plugins.data.curation.generation.session import summary as counted
from train_plugins.data.curation.output import Input, Output, Rejected, file_hash
from train_plugins.data.curation.pairs import Pair, Rules, pair_of
from train_plugins.data.curation.preference_answers import (
    ANYTHING,
    Assigned,
    answered,
    assigned,
    drawn_share,
    relaxed,
    usable,
    with_constraints,
)
from train_plugins.data.curation.preference_keys import PreferenceKeys, check
from train_plugins.data.curation.prompt_rows import BadPrompt, Prompt, as_json
from train_plugins.data.curation.recipe import Loaded
from train_plugins.data.curation.rows_file import rows_file

if TYPE_CHECKING:
    import pyarrow as pa

    from train_plugins.data.curation.candidates import Verify

WIDTH = 80
"""Columns of the lines that the command prints."""

__all__ = ["PreferenceKeys", "inputs", "make", "plan", "summary"]


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one prompt."""

    prompt: Prompt
    pair: Pair | None = None
    reason: str = ""
    """Why there is no pair."""
    detail: str = ""
    candidates: Sequence[Candidate] = ()
    scores: Sequence[float] = ()
    ratings: ratings.Ratings | None = None


@dataclass(slots=True)
class _Work:
    """The recipe, the models and the verifier, which all ways of making pairs use, and their measures of the judge."""

    keys: PreferenceKeys
    session: Session
    verify: Verify
    checks: dict[str, Any] = field(default_factory=dict)


def inputs(recipe: Loaded[PreferenceKeys]) -> list[Input]:
    """Check the recipe and hash what it reads. Raises UsageError or MissingData."""
    check(recipe)
    found = prompt_rows.inputs(recipe.keys.prompts, recipe.place)
    added = recipe.keys.add_constraints
    if added.share:
        name = added.path.name if added.path == SHIPPED else str(added.path)
        found.append(Input(name, file_hash(added.path)))
    return found


def plan(recipe: Loaded[PreferenceKeys], found: Sequence[Input]) -> dict[str, Any]:
    """Return what would be asked for."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    judged = 0
    if keys.by == "judge" and keys.judge is not None:
        judged = round(len(prompts) * len(keys.judge.aspects) * (1 + keys.judge.repeat))
    answers = keys.completions if keys.by in ("judge", "verifier") else 2
    return {
        "output": str(recipe.output), "prompts": len(prompts), "bad rows": len(bad), "by": keys.by,
        "models": [described(model) for _, model in keys.models()],
        **({"judge": described(keys.judge)} if keys.by == "judge" and keys.judge is not None else {}),
        "completions": len(prompts) * answers, "requests to the judge": judged,
    }  # fmt: skip


def make(recipe: Loaded[PreferenceKeys], output: Output) -> dict[str, Any]:
    """Make the pairs and return the manifest."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    prompts = with_constraints(prompts, keys)
    verified = prompts if keys.by in ("verifier", "relaxed") else ()
    verdicts = Verdicts(keys.workers, keys.timeout)
    with verdicts.started(verified) as verify, Session(output, keys.seed) as session:
        work = _Work(keys, session, verify)
        made = {"judge": _by_score, "verifier": _by_score, "delta": _by_delta, "relaxed": _by_relaxing}[keys.by](
            prompts, work
        )
        models = session.spent()
    results = {id(one.prompt): one for one in made}
    with output.rejected() as rejected, rows_file(output.work, keys.format, _schema()) as file:
        for row in prompt_rows.in_order(keys.prompts, prompts, bad):
            one = results.get(id(row))
            if isinstance(row, BadPrompt):
                rejected.add(Rejected(row.source, row.row, "bad_row", row.why))
            elif one is not None and one.pair is not None:
                file.add(_row(one, one.pair, keys))
            elif one is not None:
                rejected.add(Rejected(row.source, row.row, one.reason, one.detail))
    return _finish(recipe, output, made, models, read=len(prompts) + len(bad), checks=work.checks)


def summary(manifest: Mapping[str, Any]) -> list[str]:
    """Return the lines that the command prints, folded to the width of a terminal."""
    folds = textwrap.TextWrapper(WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    lines = (part for line in _about(manifest) for part in folds.wrap(line))
    return [*counted(manifest), *(line.replace(rating_checks.NO_BREAK, " ") for line in lines)]


def _about(facts: Mapping[str, Any]) -> list[str]:
    pairs = facts["pairs"]
    if not pairs["pairs"]:
        return rating_checks.described(facts["judge"]) if facts.get("judge") else []
    policys = f"{pairs['on_policy']} with an answer of the policy; " if pairs["on_policy"] else ""
    lines = [
        f"pairs: {policys}chosen is longer in {pairs['chosen_longer']} of {pairs['pairs']}, "
        f"{pairs['chosen_words']:.0f} words against {pairs['rejected_words']:.0f}"
    ]
    return lines + (rating_checks.described(facts["judge"]) if facts.get("judge") else [])


def _finish(
    recipe: Loaded[PreferenceKeys], output: Output, made: Sequence[Made], models: list[dict[str, Any]], *, read: int,
    checks: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    keys = recipe.keys
    pairs = [one for one in made if one.pair is not None]
    counts: dict[str, Any] = {"unit": "prompts", "read": read, "written": len(pairs)}
    more = {"models": models, "seed": keys.seed, "pairs": _pair_facts(pairs, keys), "judge": checks or None}
    facts = [
        f"Pairs by {keys.by}; answers by {'; '.join(described(model) for _, model in keys.models())}.",
        f"Prompts: {', '.join(one.called for one in keys.prompts)}; seed {keys.seed}.",
        f"Rejected: {keys.rejected}; margin {keys.margin:g}; length ratio {keys.length_ratio or 'any'}.",
        *(line[0].upper() + line[1:].replace(rating_checks.NO_BREAK, " ") + "." for line in _about(more)),
    ]
    if keys.by == "judge" and keys.judge is not None:
        facts.insert(1, f"Judge: {described(keys.judge)}; aspects: {', '.join(keys.judge.aspects)}.")
    shown = {"counts": {**counts, "rejected": dict(sorted(output.reasons.items()))}, "models": models}
    return output.finish(counts, card("Preferences", facts, shown), more)


def _pair_facts(pairs: Sequence[Made], keys: PreferenceKeys) -> dict[str, Any]:
    chosen = [len(one.candidates[one.pair.chosen].text.split()) for one in pairs if one.pair]
    rejected = [len(one.candidates[one.pair.rejected].text.split()) for one in pairs if one.pair]
    return {
        "pairs": len(pairs), "on_policy": sum(_on_policy(one, keys) for one in pairs),
        "chosen_longer": sum(a > b for a, b in zip(chosen, rejected, strict=True)),
        "chosen_words": sum(chosen) / max(1, len(pairs)), "rejected_words": sum(rejected) / max(1, len(pairs)),
    }  # fmt: skip


# Ways of making pairs


def _by_score(prompts: Sequence[Prompt], work: _Work) -> list[Made]:
    """Make pairs from scores: mean ratings of the judge, or verified fractions."""
    keys = work.keys
    made: list[Made] = []
    if keys.by == "verifier":
        made = [Made(prompt, reason="no_verifier") for prompt in prompts if prompt.verifier is None]
        prompts = [prompt for prompt in prompts if prompt.verifier is not None]
    plans = assigned(prompts, keys)
    found = answered(plans, work.session, keys.filters)
    open_ones: list[tuple[Assigned, list[Candidate]]] = []
    for one, candidates in zip(plans, found, strict=True):
        left = usable(candidates)
        if len(left) < 2:
            made.append(Made(one.prompt, reason=_too_few(candidates), detail=_faults(candidates)))
        else:
            open_ones.append((one, left))
    scored = _verified(open_ones, work) if keys.by == "verifier" else _rated(open_ones, work)
    return [*made, *(_paired(one, keys) for one in scored)]


def _verified(open_ones: Sequence[tuple[Assigned, list[Candidate]]], work: _Work) -> list[Made]:
    fractions = iter(work.verify([(one.prompt, each.text) for one, found in open_ones for each in found]))
    scored = []
    for one, found in open_ones:
        values = [next(fractions) for _ in found]
        known = [value for value in values if value is not None]
        problem = "unverifiable" if len(known) < len(values) else "" if max(known) >= 1 else "not_verified"
        scored.append(Made(one.prompt, reason=problem, candidates=found, scores=known))
    return scored


def _rated(open_ones: Sequence[tuple[Assigned, list[Candidate]]], work: _Work) -> list[Made]:
    keys, judge = work.keys, work.keys.judge
    assert judge is not None, "checked with the recipe"
    prompts = [one.prompt for one, _ in open_ones]
    found = ratings.rate(
        work.session.model(judge), prompts, [candidates for _, candidates in open_ones], names=judge.aspects,
        repeated=drawn_share(prompts, judge.repeat, keys.seed, "repeat"), tries=judge.asked, seed=keys.seed,
        with_example=bool(judge.example),
    )  # fmt: skip
    words = [[len(one.text.split()) for one in candidates] for _, candidates in open_ones]
    work.checks.update(rating_checks.measured(found, words))
    return [
        Made(
            one.prompt, reason=rated.problem or "", detail=rated.detail, candidates=candidates,
            scores=() if rated.problem else rated.scores(), ratings=rated,
        )
        for (one, candidates), rated in zip(open_ones, found, strict=True)
    ]  # fmt: skip


def _on_policy(one: Made, keys: PreferenceKeys) -> bool:
    """Whether a usable answer of the policy is among the candidates."""
    return keys.policy is not None and any(each.model == keys.policy.called for each in one.candidates)


def _paired(one: Made, keys: PreferenceKeys) -> Made:
    """Return what became of a prompt whose answers have scores."""
    from dataclasses import replace

    if one.reason:
        return one
    policy = keys.policy.called if keys.policy is not None and keys.policy_side else None
    rules = Rules(keys.rejected, keys.margin, keys.length_ratio, policy)
    rng = random.Random(sha256(canonical_json([keys.seed, "pair", one.prompt.messages, one.prompt.row])))
    pair = pair_of(one.candidates, one.scores, rules, rng)
    if isinstance(pair, str):
        shown = ", ".join(f"{score:g}" for score in one.scores)
        return replace(one, reason=pair, detail=f"scores {shown}")
    return replace(one, pair=pair)


def _by_delta(prompts: Sequence[Prompt], work: _Work) -> list[Made]:
    """Make pairs of a strong and a weak model's answers; only the chosen side is filtered."""
    keys, strong, weak = work.keys, work.keys.strong, work.keys.weak
    assert strong is not None and weak is not None, "checked with the recipe"
    plans = [Assigned(prompt, ((strong, 0), (weak, 0))) for prompt in prompts]
    found = answered(plans, work.session, {strong.called: keys.filters, weak.called: ANYTHING})
    return [_two(prompt, candidates, keys) for prompt, candidates in zip(prompts, found, strict=True)]


def _two(prompt: Prompt, candidates: Sequence[Candidate], keys: PreferenceKeys) -> Made:
    """Return the pair of two answers, of which the first is chosen."""
    left = usable(candidates)
    if len(left) < 2:
        return Made(prompt, reason=_too_few(candidates), detail=_faults(candidates))
    pair = pair_of(left, [1.0, 0.0], Rules(length_ratio=keys.length_ratio), random.Random(0))
    if isinstance(pair, str):
        return Made(prompt, reason=pair)
    return Made(prompt, pair, candidates=left, scores=[1.0, 0.0])


def _by_relaxing(prompts: Sequence[Prompt], work: _Work) -> list[Made]:
    """Make pairs of answers to a prompt and to the same prompt without one constraint, which the verifier confirms."""
    keys = work.keys
    models = [model for _, model in keys.models()]
    made: list[Made] = []
    plans = []
    for prompt in prompts:
        easier = relaxed(prompt, keys.seed)
        if easier is None:
            needs = "needs `task` and two entries in `constraints`"
            made.append(Made(prompt, reason="too_few_constraints", detail=needs))
        elif prompt.verifier is None:
            made.append(Made(prompt, reason="no_verifier"))
        else:
            model = random.Random(sha256(canonical_json([keys.seed, "model", prompt.messages]))).choice(models)
            plans += [Assigned(prompt, ((model, 0),)), Assigned(easier, ((model, 0),))]
    found = [one[0] for one in answered(plans, work.session, keys.filters)]
    pairs = [_two(plans[n].prompt, found[n : n + 2], keys) for n in range(0, len(plans), 2)]
    fractions = iter(
        work.verify([(one.prompt, each.text) for one in pairs if one.pair is not None for each in one.candidates])
    )
    for one in pairs:
        chosen, rejected = (next(fractions), next(fractions)) if one.pair is not None else (None, None)
        if one.pair is not None and chosen != 1.0:
            one = Made(one.prompt, reason="not_verified", detail="the answer to the whole prompt breaks a constraint")
        elif one.pair is not None and rejected == 1.0:
            one = Made(one.prompt, reason="rejected_follows", detail="the other answer keeps all constraints too")
        made.append(one)
    return made


def _too_few(candidates: Sequence[Candidate]) -> str:
    if all(one.fault is None for one in candidates):
        return "same_answers"
    return "request_failed" if all(one.failed for one in candidates if one.fault) else "too_few_answers"


def _faults(candidates: Sequence[Candidate]) -> str:
    faults = Counter(one.fault or "usable" for one in candidates)
    details = [one.detail for one in candidates if one.detail]
    shown = ", ".join(f"{name} {number}" for name, number in sorted(faults.items()))
    return "; ".join([f"{len(candidates)} answers: {shown}", *details[:1]])


# Rows


def _row(one: Made, pair: Pair, keys: PreferenceKeys) -> dict[str, Any]:
    chosen, rejected = one.candidates[pair.chosen], one.candidates[pair.rejected]
    answers = [
        {
            "model": each.model, "sample": each.sample, "text": each.text, "score": one.scores[number],
            **({"ratings": one.ratings.of(number)} if one.ratings is not None else {}),
        }
        for number, each in enumerate(one.candidates)
    ]  # fmt: skip
    return {
        "id": one.prompt.id, "source": one.prompt.source, "row": one.prompt.row,
        "prompt": [{"role": role, "content": content} for role, content in one.prompt.messages],
        "chosen": [{"role": "assistant", "content": chosen.text}],
        "rejected": [{"role": "assistant", "content": rejected.text}],
        "chosen_model": chosen.model, "rejected_model": rejected.model,
        "chosen_score": one.scores[pair.chosen], "rejected_score": one.scores[pair.rejected],
        "on_policy": _on_policy(one, keys), "by": keys.by, "answers": json.dumps(answers, ensure_ascii=False),
        "dataset": one.prompt.dataset, "ground_truth": as_json(one.prompt.truth),
    }  # fmt: skip


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    turns = pa.list_(pa.struct([("role", text), ("content", text)]))
    return pa.schema([
        ("id", text), ("source", text), ("row", pa.int64()), ("prompt", turns), ("chosen", turns), ("rejected", turns),
        ("chosen_model", text), ("rejected_model", text), ("chosen_score", number), ("rejected_score", number),
        ("on_policy", pa.bool_()), ("by", text), ("answers", text), ("dataset", text), ("ground_truth", text),
    ])  # fmt: skip
