"""Prompts that a recipe reads: rows of any known form, brought to turns that end with a user's, with their truth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from olmes_suite.errors import DataError, UsageError
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.names import PROMPT, first
from olmes_suite.training_rows.reading import Unreadable, rows_of
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.generation.completions import Messages
from train_plugins.data.curation.hub import load as load_hub
from train_plugins.data.curation.inputs import content_hash, files_of
from train_plugins.data.curation.output import Input
from train_plugins.data.curation.reward_forms import normalised
from train_plugins.data.sets import rows_hash
from train_plugins.data.surrogates import is_unicode
from train_plugins.data.turns import Turn, conversation_column, turns, with_system
from train_plugins.verifiers import Malformed, registry
from train_plugins.verifiers.truths import read_truth, with_columns

ROLES = ("system", "user", "assistant")
TRUTHS, VERIFIER = ("ground_truth", "reward_model"), ("verifier", "dataset", "data_source")
"""Columns with a row's truth, and with its verifier's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """An entry under `prompts`: a set of rows whose prompts are answered."""

    path: str | None = None
    """A file of rows, or a folder of such files."""
    hub: str | None = None
    """Id of a data set on the Hub."""
    split: str = "train"
    limit: int | None = None
    """Number of rows to read from the start."""
    name: str | None = None
    """The source's name in rows; by default its path or id."""
    verifiers: Mapping[str, str] = field(default_factory=dict)
    """Verifiers by the names that the rows use, where these are no verifiers' names: {openai/gsm8k: gsm8k}."""
    bad_rows: Literal["error", "skip"] = "error"
    """Whether a row that cannot be read ends the command, or is left out and listed in rejected.jsonl."""

    @property
    def called(self) -> str:
        """The source's name in rows and messages."""
        return self.name or self.hub or str(self.path)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of one row."""

    source: str
    row: int
    """Number of the row in its source, from 0."""
    messages: Messages
    """(role, content) pairs, ending with a user's turn."""
    answer: str | None = None
    """The answer that the row has already."""
    verifier: str | None = None
    """Registered name of the verifier; None for a prompt whose answers cannot be verified."""
    truth: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The whole row."""

    @property
    def id(self) -> str:
        """The row's own id, or a hash of its prompt."""
        own = self.columns.get("id")
        usable = isinstance(own, str | int) and str(own) and is_unicode(own)
        return str(own) if usable else sha256(canonical_json(self.messages))[:16]

    @property
    def dataset(self) -> str | None:
        """The verifier's name; where answers cannot be verified here, the name that the row has."""
        own = self.columns.get("dataset")
        return self.verifier or (own if isinstance(own, str) else None)

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1][1]


@dataclass(frozen=True, slots=True)
class BadPrompt:
    """A row without a usable prompt."""

    source: str
    row: int
    why: str


def inputs(sets: Sequence[PromptSet], place: Place) -> list[Input]:
    """Return the sets with the hashes of their content. Raises UsageError that names the entry."""
    if not sets:
        raise UsageError(f"{place.at('prompts')}: name at least one set, by `path` or `hub`")
    found = []
    names = [one.called for one in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{place.at('prompts')}: two sets are called {twice!r}; give one of them another `name`")
    for number, one in enumerate(sets):
        here = place.at("prompts", number)
        if (one.path is None) == (one.hub is None):
            raise UsageError(f"{here}: give either `path` or `hub`")
        if one.limit is not None and one.limit < 1:
            raise UsageError(
                f"{place.at('prompts', number, 'limit')}: expected a whole number of at least 1, not {one.limit}"
            )
        try:
            registry.check(list(one.verifiers.values()))
        except UsageError as error:
            raise UsageError(f"{place.at('prompts', number, 'verifiers')}: {error}") from None
        if one.path is not None:
            found.append(Input(one.path, content_hash(files_of(Path(one.path).expanduser(), one.split, here))))
        else:
            found.append(Input(str(one.hub), rows_hash(load_hub(str(one.hub), one.split))))
    return found


def read(sets: Sequence[PromptSet]) -> tuple[list[Prompt], list[BadPrompt]]:
    """Read all prompts, and the rows that have none where their set says `bad_rows: skip`.

    Raises DataError that names source and row, before anything is asked of a model.
    """
    prompts: list[Prompt] = []
    bad: list[BadPrompt] = []
    for one in sets:
        before = len(prompts)
        for number, row in enumerate(islice(_rows(one), one.limit)):
            try:
                if isinstance(row, Unreadable):
                    raise ValueError(row.why)
                prompts.append(prompt_of(row, one.called, number, one.verifiers))
            except ValueError as error:
                if one.bad_rows == "error":
                    raise DataError(
                        f"{one.called}: row {number}: {error}; `bad_rows: skip` in its entry leaves such rows out"
                    ) from None
                bad.append(BadPrompt(one.called, number, str(error)))
        if len(prompts) == before:
            raise DataError(f"{one.called}: holds no usable rows")
    return prompts, bad


def in_order(
    sets: Sequence[PromptSet], prompts: Sequence[Prompt], bad: Sequence[BadPrompt]
) -> list[Prompt | BadPrompt]:
    """Return prompts and bad rows as they stand in the sets."""
    places = {one.called: number for number, one in enumerate(sets)}
    return sorted([*prompts, *bad], key=lambda row: (places[row.source], row.row))


def prompt_of(row: Mapping[str, Any], source: str, number: int, names: Mapping[str, str] | None = None) -> Prompt:
    """Return the prompt of a row; `names` maps the row's names of verifiers. Raises ValueError with what is wrong."""
    given = _unpacked(row)
    row = _with_truth(given, names or {})
    if any(given.get(key) is not None for key in TRUTHS) and any(given.get(key) for key in VERIFIER):
        row = normalised(row)
    said = _turns(row)
    if not said:
        raise ValueError("no turns")
    messages = tuple((str(turn["role"]), turn["content"]) for turn in said)
    for role, content in messages:
        if role not in ROLES:
            raise ValueError(f"a turn of {role[:40]!r}; known roles: {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"a turn of {role!r} whose content is {type(content).__name__} instead of text")
        if role == "user" and not content.strip():
            raise ValueError("a user turn without content")
        if not is_unicode(content):
            raise ValueError("text that is not Unicode (half a surrogate pair)")
    answer = None
    if messages[-1][0] == "assistant":
        answer, messages = messages[-1][1], messages[:-1]
    spoken = [role for role, _ in messages if role != "system"]
    in_order = spoken == ["assistant" if place % 2 else "user" for place in range(len(spoken))]
    if not in_order or len(spoken) % 2 == 0 or any(role == "system" for role, _ in messages[1:]):
        short = " ".join([role for role, _ in messages][:6]) or "no turns"
        raise ValueError(f"wrong turn order ({short}; expected user, assistant, …, ending in user)")
    verifier, truth = _verifier(row, names or {})
    return Prompt(source, number, messages, answer, verifier, truth, {**row, "row": number})


def _unpacked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of `olmes data passrate` with the columns that it has packed into one; another row as it is."""
    text = row.get("columns")
    if "passrate" not in row or not isinstance(text, str):
        return row
    try:
        packed = json.loads(text)
    except (ValueError, RecursionError):
        return row
    if not isinstance(packed, dict):
        return row
    return {**packed, **{name: value for name, value in row.items() if name != "columns"}}


def _with_truth(row: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a row whose `ground_truth` has what the verifier that it names would read in other columns."""
    named = next((row[key] for key in VERIFIER if row.get(key)), None)
    if isinstance(named, list | tuple) and len(named) == 1:
        named = named[0]
    if not isinstance(named, str) or row.get("reward_model") is not None:
        return row
    truth = with_columns(names.get(named, named).strip().lower(), row.get("ground_truth"), row)
    return row if truth is None else {**row, "dataset": named, "ground_truth": truth}


def _turns(row: Mapping[str, Any]) -> list[Turn]:
    column = conversation_column(row)
    if column is not None:
        return with_system(row, turns(row[column], column))
    asked = first([name for name in row if row[name] is not None], PROMPT)
    if asked is None:
        columns = ", ".join(map(str, row)) or "none"
        raise ValueError(f"no 'messages' and no 'prompt' (columns: {columns:.200})")
    value = row[asked]
    if not isinstance(value, str):
        return with_system(row, turns(value, asked))
    more = row.get("input") if asked == "instruction" else None
    text = f"{value}\n\n{more}" if isinstance(more, str) and more.strip() else value
    return with_system(row, [{"role": "user", "content": text}])


def _verifier(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str | None, Any]:
    """Return the verifier that a row names, and its truth. Raises ValueError for an unknown name or a wrong truth.

    Verifiers that ask a model, or judge form alone, count as none: such answers cannot be verified here.
    """
    named, truth = row.get("dataset"), row.get("ground_truth")
    if not isinstance(named, str) or truth is None:
        return None, truth
    name = _registered(names.get(named, named))
    if name in (*registry.JUDGED, *registry.OF_FORM):
        return None, truth
    try:
        read_truth(name, truth, row)
    except Malformed as error:
        raise ValueError(f"a 'ground_truth' that the verifier {name} cannot read: {error}") from None
    if not is_unicode(truth):
        raise ValueError("a 'ground_truth' that is not Unicode (half a surrogate pair)")
    return name, truth


@lru_cache(maxsize=64)
def _registered(name: str) -> str:
    try:
        return registry.check([name])[0]
    except UsageError as error:
        raise ValueError(str(error)) from None


def _rows(one: PromptSet) -> Iterator[dict[str, Any] | Unreadable]:
    if one.path is not None:
        for file in files_of(Path(one.path).expanduser(), one.split, one.path):
            yield from rows_of(file)
    else:
        yield from load_hub(str(one.hub), one.split)


def as_json(value: Any) -> str | None:
    """Return a value as a JSON text, because a column of a table has one type; None and texts stay.

    Numbers that JSON does not have are null in it, and half surrogate pairs are escaped.
    """
    if value is None or isinstance(value, str):
        return value
    text = json.dumps(_finite(value), ensure_ascii=False, sort_keys=True, default=str)
    return json.dumps(json.loads(text), sort_keys=True) if not is_unicode(text) else text


def _finite(value: Any) -> Any:
    """Return a value with null in place of NaN and infinite numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
