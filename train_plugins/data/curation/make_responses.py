"""`olmes data responses`: answers to prompts by one or several models, filtered and, where possible, verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from olmes_suite.errors import UsageError
from train_plugins.data.curation import prompt_rows, text_filters
from train_plugins.data.curation.candidates import (
    ORIGINAL,
    Candidate,
    Verdicts,
    Verify,
    ask_of,
    check_verification,
    of_response,
)
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.generation.session import Session, card, check_models, check_names, described
from train_plugins.data.curation.output import Input, Output, Rejected
from train_plugins.data.curation.prompt_rows import BadPrompt, Prompt, PromptSet, as_json
from train_plugins.data.curation.recipe import Curation, Loaded
from train_plugins.data.curation.rows_file import rows_file
from train_plugins.data.curation.text_filters import TextFilters

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseKeys(Curation):
    """Keys of a recipe of `olmes data responses`."""

    prompts: tuple[PromptSet, ...]
    models: tuple[Model, ...]
    best_of: int = 1
    """Answers of each model to a prompt, at most."""
    keep: Literal["first", "all", "shortest"] = "first"
    """Which of the answers that pass are kept. `first` asks for another answer only where none has passed yet."""
    verify: Literal["auto", "required", "off"] = "auto"
    """auto: answers to prompts with a verifier are verified; required: prompts without one are left out."""
    least: float = 1.0
    """Verified fraction from which an answer passes."""
    original: Literal["ignore", "first", "fallback"] = "ignore"
    """The answer that a row has already: ignored; kept if it passes, and only replaced if not; or kept where no other
    answer passes."""
    thoughts: Literal["column", "turn"] = "column"
    """Where thoughts go: into the column `thinking`, or also into the assistant's turn as `reasoning_content`."""
    filters: TextFilters = field(default_factory=TextFilters)
    workers: int = 2
    """Processes that verify."""
    timeout: float = 10.0
    """Processor seconds of a verdict."""


def inputs(recipe: Loaded[ResponseKeys]) -> list[Input]:
    """Check the recipe and hash what it reads. Raises UsageError or MissingData."""
    keys, place = recipe.keys, recipe.place
    if not keys.models:
        raise UsageError(f"{place.at('models')}: name at least one model")
    named = [(("models", number), model) for number, model in enumerate(keys.models)]
    check_names(named, place)
    text_filters.check(keys.filters, place.inside("filters"))
    check_verification(keys.workers, keys.timeout, place)
    if keys.best_of < 1:
        raise UsageError(f"{place.at('best_of')}: expected a whole number of at least 1, not {keys.best_of}")
    if not 0 < keys.least <= 1:
        raise UsageError(f"{place.at('least')}: expected a fraction above 0 and at most 1, not {keys.least:g}")
    check_models(named, place)  # last: it may ask the Hub
    return prompt_rows.inputs(keys.prompts, place)


def plan(recipe: Loaded[ResponseKeys], found: Sequence[Input]) -> dict[str, Any]:
    """Return what would be asked for."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    verified = Counter(prompt.verifier or "none" for prompt in prompts)
    return {
        "output": str(recipe.output), "prompts": len(prompts), "bad rows": len(bad),
        "verifiers": [f"{name}: {count}" for name, count in sorted(verified.items())],
        "models": [described(model) for model in keys.models],
        "completions": f"at most {len(prompts) * len(keys.models) * keys.best_of}",
    }  # fmt: skip


def make(recipe: Loaded[ResponseKeys], output: Output) -> dict[str, Any]:
    """Make the responses and return the manifest."""
    keys = recipe.keys
    prompts, bad = prompt_rows.read(keys.prompts)
    asked = [prompt for prompt in prompts if keys.verify != "required" or prompt.verifier]
    verdicts = Verdicts(keys.workers, keys.timeout)
    with verdicts.started(asked if keys.verify != "off" else ()) as verify, Session(output, keys.seed) as session:
        answers = _answers(asked, keys, session, verify)
        models = session.spent()
    kept = {id(prompt): chosen(found, keys) for prompt, found in zip(asked, answers, strict=True)}
    found_by = {id(prompt): found for prompt, found in zip(asked, answers, strict=True)}
    written = 0
    with output.rejected() as rejected, rows_file(output.work, keys.format, schema(keys)) as file:
        for row in prompt_rows.in_order(keys.prompts, prompts, bad):
            if isinstance(row, BadPrompt):
                rejected.add(Rejected(row.source, row.row, "bad_row", row.why))
                continue
            if id(row) not in kept:
                rejected.add(Rejected(row.source, row.row, "no_verifier"))
            elif not kept[id(row)]:
                rejected.add(Rejected(row.source, row.row, *why(found_by[id(row)])))
            for candidate in kept.get(id(row), ()):
                file.add(_row(row, candidate, found_by[id(row)], keys))
                written += 1
    answered = sum(map(bool, kept.values()))
    outcomes = Counter(one.fault or "passed" for found in answers for one in found)
    counts = {"unit": "prompts", "read": len(prompts) + len(bad), "added": written - answered, "written": written}
    return _finish(recipe, output, {**counts, "candidates": dict(sorted(outcomes.items()))}, models)


def _finish(
    recipe: Loaded[ResponseKeys], output: Output, counts: Mapping[str, Any], models: list[dict[str, Any]]
) -> dict[str, Any]:
    keys = recipe.keys
    facts = [
        f"Answers by {'; '.join(described(model) for model in keys.models)}.",
        f"Prompts: {', '.join(one.called for one in keys.prompts)}; seed {keys.seed}.",
        f"Up to {keys.best_of} answers of each model; kept: {keys.keep}; verification: {keys.verify}.",
        f"Candidates: {', '.join(f'{name} {number}' for name, number in counts['candidates'].items()) or 'none'}.",
    ]
    shown = {"counts": {**counts, "rejected": dict(sorted(output.reasons.items()))}, "models": models}
    return output.finish(counts, card("Responses", facts, shown), {"models": models, "seed": keys.seed})


def _answers(prompts: Sequence[Prompt], keys: ResponseKeys, session: Session, verify: Verify) -> list[list[Candidate]]:
    """Return the candidates of each prompt, in the order in which they are preferred."""
    found: list[list[Candidate]] = [[] for _ in prompts]
    if keys.original == "first":
        _add(prompts, found, dict(enumerate(_originals(prompts, keys.filters))), keys, verify)
    rounds = [(model, sample) for sample in range(keys.best_of) for model in keys.models]
    if keys.keep != "first":
        rounds.sort(key=lambda one: (keys.models.index(one[0]), one[1]))
    for model, sample in rounds:
        open_ones = [n for n in range(len(prompts)) if not _settled(found[n], keys)]
        responses = session.model(model).complete([ask_of(prompts[n], sample) for n in open_ones])
        new = {
            n: of_response(response, model.called, sample, keys.filters)
            for n, response in zip(open_ones, responses, strict=True)
        }
        _add(prompts, found, new, keys, verify)
    if keys.original == "fallback":
        originals = _originals(prompts, keys.filters)
        without = {n: originals[n] for n in range(len(prompts)) if not any(one.fault is None for one in found[n])}
        _add(prompts, found, without, keys, verify)
    return found


def _settled(found: Sequence[Candidate], keys: ResponseKeys) -> bool:
    passed = [one for one in found if one.fault is None]
    return bool(passed) and (keys.keep == "first" or passed[0].model == ORIGINAL)


def _add(
    prompts: Sequence[Prompt], found: list[list[Candidate]], new: Mapping[int, Candidate | None], keys: ResponseKeys,
    verify: Verify,
) -> None:  # fmt: skip
    """Add candidates with their verdicts."""
    usable = {
        n: one for n, one in new.items()
        if one is not None and one.fault is None and prompts[n].verifier and keys.verify != "off"
    }  # fmt: skip
    fractions = dict(zip(usable, verify([(prompts[n], one.text) for n, one in usable.items()]), strict=True))
    for n, one in new.items():
        if one is None:
            continue
        if n in fractions:
            one = judged(one, fractions[n], keys.least)
        if one.fault is None and any(other.text == one.text and other.fault is None for other in found[n]):
            one = replace(one, fault="same_answer")
        found[n].append(one)


def judged(candidate: Candidate, fraction: float | None, least: float) -> Candidate:
    """Return a candidate with its verdict."""
    if fraction is None:
        return replace(candidate, fault="unverifiable")
    return replace(candidate, verified=fraction, fault=None if fraction >= least else "not_verified")


def _originals(prompts: Sequence[Prompt], filters: TextFilters) -> list[Candidate | None]:
    return [
        None if one.answer is None
        else Candidate(ORIGINAL, 0, one.answer.strip(), fault=text_filters.fault(one.answer, filters))
        for one in prompts
    ]  # fmt: skip


def chosen(found: Sequence[Candidate], keys: ResponseKeys) -> list[Candidate]:
    """Return the candidates of one prompt that are kept."""
    passed = [one for one in found if one.fault is None]
    if keys.keep == "all" or not passed:
        return passed
    return [min(passed, key=lambda one: len(one.text))] if keys.keep == "shortest" else passed[:1]


def why(found: Sequence[Candidate]) -> tuple[str, str]:
    """Return why a prompt has no answer, as its most frequent fault, and the number of each."""
    faults = Counter(one.fault or "" for one in found)
    if not faults:
        return "no_answer", ""
    reason = max(faults, key=lambda name: (faults[name], name == "not_verified"))
    details = [one.detail for one in found if one.detail]
    counted = ", ".join(f"{name} {number}" for name, number in sorted(faults.items()))
    return reason, "; ".join([f"{len(found)} answers: {counted}", *details[:1]])


def _row(prompt: Prompt, one: Candidate, found: Sequence[Candidate], keys: ResponseKeys) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in prompt.messages]
    answer: dict[str, Any] = {"role": "assistant", "content": one.text}
    if keys.thoughts == "turn":
        answer["reasoning_content"] = one.thinking
    return {
        "id": prompt.id, "source": prompt.source, "row": prompt.row, "messages": [*turns, answer],
        "thinking": one.thinking, "model": one.model, "sample": one.sample, "verified": one.verified,
        "candidates": len(found), "passed": sum(other.fault is None for other in found), "tokens": one.tokens,
        "dataset": prompt.dataset, "ground_truth": as_json(prompt.truth),
    }  # fmt: skip


def schema(keys: ResponseKeys) -> pa.Schema:
    """Return the columns of the rows."""
    import pyarrow as pa

    fields = [("role", pa.string()), ("content", pa.string())]
    if keys.thoughts == "turn":
        fields.append(("reasoning_content", pa.string()))
    whole, text = pa.int64(), pa.string()
    return pa.schema([
        ("id", text), ("source", text), ("row", whole), ("messages", pa.list_(pa.struct(fields))), ("thinking", text),
        ("model", text), ("sample", whole), ("verified", pa.float64()), ("candidates", whole), ("passed", whole),
        ("tokens", whole), ("dataset", text), ("ground_truth", text),
    ])  # fmt: skip
