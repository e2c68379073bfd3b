"""`olmes data prompts`: prompts written by a model for personas, by skill, without duplicates and unusable texts."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from olmes_suite.records import canonical_json, sha256
from olmes_suite.yaml_files import Place
from train_plugins.data.curation import constraint_draws, personas, templates, text_filters
from train_plugins.data.curation.constraint_draws import Drawn
from train_plugins.data.curation.duplicates import digest, duplicates
from train_plugins.data.curation.generation.completions import Ask, Failed, note
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.generation.session import Session, card, check_models, described
from train_plugins.data.curation.output import Input, Output, Rejected, file_hash
from train_plugins.data.curation.personas import Personas
from train_plugins.data.curation.recipe import Curation, Loaded
from train_plugins.data.curation.rows_file import rows_file
from train_plugins.data.curation.templates import Template
from train_plugins.data.curation.text_filters import TextFilters

if TYPE_CHECKING:
    import pyarrow as pa

    from olmes_suite.records import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """An entry under `skills`."""

    skill: str
    """A shipped template's name, or the YAML file of one."""
    count: int
    """Prompts that the model is asked for; filters leave fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Keys under `duplicates`."""

    near: float | None = 0.8
    """Jaccard similarity of word n-grams from which prompts are near duplicates; null: only exact ones are removed."""
    shingle: int = 3
    """Words of an n-gram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptKeys(Curation):
    """Keys of a recipe of `olmes data prompts`."""

    generator: Model
    skills: tuple[Skill, ...]
    personas: Personas = field(default_factory=Personas)
    few_shot: int = 1
    """Examples in each request, drawn from the template's."""
    constraints: tuple[int, ...] = (1, 3)
    """Fewest and most constraints of a prompt whose template has them."""
    constraint_file: str | None = None
    """A user's file of constraints instead of the shipped one."""
    filters: TextFilters = field(default_factory=lambda: TextFilters(language="en"))
    duplicates: Duplicates = field(default_factory=Duplicates)


@dataclass(frozen=True, slots=True)
class Planned:
    """A prompt that is asked for."""

    id: str
    template: Template
    text: int
    """Number of the template's text."""
    persona: int
    examples: tuple[int, ...]
    name: str
    """The skill as the recipe names it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt that passed the filters."""

    planned: Planned
    task: str
    constraints: tuple[Drawn, ...] = ()

    @property
    def prompt(self) -> str:
        """The whole prompt."""
        return constraint_draws.prompt(self.task, self.constraints)


def inputs(recipe: Loaded[PromptKeys]) -> list[Input]:
    """Check the recipe and hash what it reads. Raises UsageError, DataError or MissingData."""
    keys, place = recipe.keys, recipe.place
    personas.check(keys.personas, place.inside("personas"))
    text_filters.check(keys.filters, place.inside("filters"))
    if not keys.skills:
        raise UsageError(f"{place.at('skills')}: name at least one; known: {', '.join(templates.names())}")
    for number, one in enumerate(keys.skills):
        templates.find(one.skill, place.at("skills", number))
        if one.count < 1:
            raise UsageError(f"{place.at('skills', number, 'count')}: expected at least 1, not {one.count}")
    _check_numbers(keys, place)
    check_models([(("generator",), keys.generator)], place)  # last: it may ask the Hub
    found = [personas.source(keys.personas, place.inside("personas"))]
    if keys.personas.hub_id is None:  # that of the Hub is read once, later
        personas.read(keys.personas)
    files = [Path(one.skill).expanduser() for one in keys.skills if one.skill not in templates.names()]
    if _has_constraints(keys, place):
        constraint_draws.check_file(_constraint_file(keys), place.at("constraint_file"))
        files.append(_constraint_file(keys))
    for line in personas.warnings(keys.personas):
        note(f"olmes: warning: {line}")
    return [*found, *(Input(_shown(file), file_hash(file)) for file in files)]


def plan(recipe: Loaded[PromptKeys], found: Sequence[Input]) -> dict[str, Any]:
    """Return what would be asked for, and the first request."""
    keys = recipe.keys
    people = personas.read(keys.personas)
    planned = _planned(keys, len(people), recipe.place)
    return {
        "output": str(recipe.output), "personas": f"{len(people)} of {keys.personas.called}",
        "licence": personas.licence_of(keys.personas) or "not known", "generator": described(keys.generator),
        "prompts": [f"{one.skill}: {one.count}" for one in keys.skills], "completions": len(planned),
        "first request": _request(planned[0], people),
    }  # fmt: skip


def make(recipe: Loaded[PromptKeys], output: Output) -> dict[str, Any]:
    """Make the prompts and return the manifest."""
    keys = recipe.keys
    people = personas.read(keys.personas)
    planned = _planned(keys, len(people), recipe.place)
    with Session(output, keys.seed) as session:
        asks = _asks([_request(one, people) for one in planned])
        answers = session.model(keys.generator).complete(asks)
        models = session.spent()
    with output.rejected() as rejected:
        drafts = []
        for one, answer in zip(planned, answers, strict=True):
            reason, said, detail = _read(one, answer, keys)
            if reason:
                rejected.add(Rejected(one.name, {"id": one.id, "text": said}, reason, detail))
            else:
                drafts.append(Draft(one, said, _constraints(one, said, keys)))
        repeated = duplicates([draft.prompt for draft in drafts], keys.duplicates.near, keys.duplicates.shingle)
        with rows_file(output.work, keys.format, _schema()) as file:
            for number, draft in enumerate(drafts):
                if twin := repeated.get(number):
                    same = digest(drafts[twin.of].prompt) == digest(draft.prompt)
                    reason = "duplicate" if same else "near_duplicate"
                    about = f"of {drafts[twin.of].planned.id}, similarity {twin.similarity:.3f}"
                    row = {"id": draft.planned.id, "text": draft.prompt}
                    rejected.add(Rejected(draft.planned.name, row, reason, about))
                else:
                    file.add(_row(draft, people, keys))
    return _finish(recipe, output, models, read=len(planned), written=len(drafts) - len(repeated))


def _finish(
    recipe: Loaded[PromptKeys], output: Output, models: list[dict[str, Any]], *, read: int, written: int
) -> dict[str, Any]:
    keys = recipe.keys
    counts = {"unit": "requests", "read": read, "written": written}
    licence = personas.licence_of(keys.personas)
    facts = [
        f"Prompts written by {described(keys.generator)}.",
        f"Personas: {keys.personas.called}; licence: {licence or 'not known'}.",
        *personas.warnings(keys.personas),
        f"Skills: {', '.join(f'{one.skill} ({one.count} asked for)' for one in keys.skills)}; seed {keys.seed}.",
    ]
    shown = {"counts": {**counts, "rejected": dict(sorted(output.reasons.items()))}, "models": models}
    more = {"models": models, "seed": keys.seed, "licence": licence}
    return output.finish(counts, card("Prompts", facts, shown), more)


def _planned(keys: PromptKeys, people: int, place: Place) -> list[Planned]:
    """Return every prompt that is asked for: personas in a drawn order, each once before any comes again."""
    planned = []
    for position, skill in enumerate(keys.skills):
        template = templates.find(skill.skill, place.inside("skills", position))
        rng = random.Random(f"{keys.seed} {template.skill} {position}")
        order: list[int] = []
        for number in range(skill.count):
            if not order:
                order = rng.sample(range(people), people)
            text = rng.randrange(len(template.texts))
            examples = tuple(rng.sample(range(len(template.seeds)), min(keys.few_shot, len(template.seeds))))
            name = f"{template.skill}-{position}" if position else template.skill
            planned.append(Planned(f"{name}-{number:06d}", template, text, order.pop(), examples, template.skill))
    return planned


def _asks(requests: Sequence[str]) -> list[Ask]:
    """Return a completion to ask for each request; equal requests get samples with seeds of their own."""
    seen: Counter[str] = Counter()
    asks = []
    for request in requests:
        asks.append(Ask((("user", request),), seen[request]))
        seen[request] += 1
    return asks


def _request(planned: Planned, people: Sequence[str]) -> str:
    template = planned.template
    examples = [template.seeds[number] for number in planned.examples]
    return templates.asked(template, template.texts[planned.text], people[planned.persona], examples)


def _read(planned: Planned, answer: Response | Failed, keys: PromptKeys) -> tuple[str, str, str]:
    """Return (why a completion is left out or "", its prompt, detail)."""
    if isinstance(answer, Failed):
        return "request_failed", "", answer.reason
    text = answer.text or ""
    if answer.unclosed:
        return "unclosed_thought", text, ""
    if answer.finish_reason == "length":
        return "cut", text, f"ended at {keys.generator.max_tokens} tokens"
    template = planned.template
    prompt = templates.parsed(template, text)
    if prompt is None:
        refused = keys.filters.refusal and text_filters.has_phrase(text, "refusal")
        return ("refusal", text, "") if refused else ("no_label", text, f"{template.label!r} is missing")
    bounds = replace(
        keys.filters,
        min_words=max(keys.filters.min_words, template.least_words),
        max_words=min(keys.filters.max_words or template.most_words, template.most_words),
    )
    return text_filters.fault(prompt, bounds) or "", prompt, ""


def _constraints(planned: Planned, task: str, keys: PromptKeys) -> tuple[Drawn, ...]:
    if not planned.template.constraints:
        return ()
    rng = random.Random(f"{keys.seed} constraints {planned.id}")
    least, most = keys.constraints
    found = constraint_draws.load(_constraint_file(keys))
    return tuple(constraint_draws.draw(found, rng.randint(least, most), rng, task))


def _row(draft: Draft, people: Sequence[str], keys: PromptKeys) -> Mapping[str, Any]:
    planned, drawn = draft.planned, draft.constraints
    return {
        "id": f"{planned.id}-{sha256(canonical_json(draft.prompt))[:8]}", "source": keys.personas.called,
        "skill": planned.template.skill, "messages": [{"role": "user", "content": draft.prompt}],
        "dataset": "ifeval" if drawn else None,
        "ground_truth": json.dumps(constraint_draws.truth(drawn), ensure_ascii=False) if drawn else None,
        "task": draft.task if drawn else None,
        "constraints": json.dumps([one.as_json() for one in drawn], ensure_ascii=False) if drawn else None,
        "persona": people[planned.persona], "template": planned.text, "examples": list(planned.examples),
        "model": keys.generator.called,
    }  # fmt: skip


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = ("id", "source", "skill", "dataset", "ground_truth", "task", "constraints", "persona", "model")
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    fields = {name: pa.string() for name in texts} | {
        "messages": pa.list_(turn), "template": pa.int32(), "examples": pa.list_(pa.int32()),
    }  # fmt: skip
    order = (
        "id", "source", "skill", "messages", "dataset", "ground_truth", "task", "constraints", "persona", "template",
        "examples", "model",
    )  # fmt: skip
    return pa.schema([(name, fields[name]) for name in order])


def _check_numbers(keys: PromptKeys, place: Place) -> None:
    if keys.few_shot < 0:
        raise UsageError(f"{place.at('few_shot')}: expected a whole number of at least 0, not {keys.few_shot}")
    if len(keys.constraints) != 2 or not 1 <= keys.constraints[0] <= keys.constraints[1]:
        raise UsageError(f"{place.at('constraints')}: expected the fewest and the most, such as [1, 3]")
    if keys.duplicates.near is not None and not 0 < keys.duplicates.near <= 1:
        raise UsageError(f"{place.at('duplicates', 'near')}: expected a number above 0 and at most 1, or null")
    if keys.duplicates.shingle < 1:
        raise UsageError(f"{place.at('duplicates', 'shingle')}: expected at least 1, not {keys.duplicates.shingle}")


def _has_constraints(keys: PromptKeys, place: Place) -> bool:
    return any(templates.find(one.skill, place).constraints for one in keys.skills)


def _constraint_file(keys: PromptKeys) -> Path:
    return Path(keys.constraint_file).expanduser() if keys.constraint_file else constraint_draws.SHIPPED


def _shown(file: Path) -> str:
    """Return a shipped file's name without the folder of this installation."""
    return file.name if file == constraint_draws.SHIPPED else str(file)
