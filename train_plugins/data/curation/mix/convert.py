"""A row of a source in the one form of its mix's kind."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.errors import UsageError
from train_plugins.config.recipe import Form
from train_plugins.data import fields, forms, messages
from train_plugins.data.curation import reward_forms
from train_plugins.data.curation.mix.keys import Kind
from train_plugins.data.curation.reward_prompts import Build
from train_plugins.verifiers import Malformed, registry
from train_plugins.verifiers.truths import COMPARED, read_truth, with_columns

VERSION = 4
"""Changes where equal rows would be brought to another form than before."""


@dataclass(slots=True)
class Converter:
    """Brings the rows of one source to one form."""

    kind: Kind
    form: Form | None = None
    keep: tuple[str, ...] = ()
    verifiers: Mapping[str, str] = field(default_factory=dict)
    build: Build | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row's columns in the output. Raises ValueError with what is wrong with the row."""
        made = {"sft": self._conversation, "preference": self._pair, "rlvr": self._prompt}[self.kind](row)
        for column in self.keep:
            value = _kept(row.get(column), column)
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"a number in {column!r} that takes more than 64 bits")
            if column not in made and value is not None:
                made[column] = value
        return made

    def _conversation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        _, found = forms.converted(row, "conversation", self.form)
        made = messages.conversation(found)
        _check_spoken(made["messages"])
        turns, around = _whole(made, "messages")
        return {"messages": turns, **around}

    def _pair(self, row: Mapping[str, Any]) -> dict[str, Any]:
        _, found = forms.converted(row, "pair", self.form)
        made = messages.preference(found)
        _check_spoken(made["chosen"])
        (chosen, around), (rejected, _) = _whole(made, "chosen"), _whole(made, "rejected")
        if chosen[-1] == rejected[-1]:
            raise ValueError("equal answers as chosen and rejected")
        return {"chosen": chosen, "rejected": rejected, **around}

    def _prompt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if "tools" not in self.keep:
            messages.check_no_tools(row)
        found = reward_forms.normalised(row) if self.build is None else self.build(row)
        turns = messages.turns_of(found["messages"], "messages")
        _check_prompt(turns)
        name = _verifier(self.verifiers.get(found["dataset"], found["dataset"]))
        truth = with_columns(name, found["ground_truth"], row)
        if truth is None and name in COMPARED:
            raise ValueError(f"no 'ground_truth', with which the verifier {name} compares")
        try:
            read_truth(name, truth, {"messages": turns})  # the mix keeps no other column of the row
        except Malformed as error:
            raise ValueError(f"a 'ground_truth' that the verifier {name} cannot read: {error}") from None
        text = truth if truth is None or isinstance(truth, str) else as_json(truth)
        return {"messages": turns, "ground_truth": text, "dataset": name}


def as_json(value: Any) -> str:
    """Return a value as JSON text. Raises ValueError for what JSON does not have, such as NaN."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"a value that JSON does not have: {error}") from None
    except ValueError:
        raise ValueError("a number that JSON does not have: it is infinite, or NaN") from None


def _kept(value: Any, column: str) -> Any:
    """Return a kept value as JSON has it: dates and times as text of ISO 8601, NaN as null. Raises ValueError."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise ValueError(f"an infinite number in {column!r}")
    if isinstance(value, Mapping):
        return {str(key): _kept(one, column) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(one, column) for one in value]
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"a value of type {type(value).__name__} in {column!r}, which JSON does not have")
    return value


def _whole(made: Mapping[str, Any], column: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the turns of a read row with all of their fields, and the row's columns `tools` and the like.

    Turns that are not trained on have `weight` 0. Tools are JSON text, as tables need them.
    """
    found = fields.read(made, column)
    turns = [
        {**turn, "weight": 0} if place in found.untrained else turn for place, turn in enumerate(found.messages)
    ]  # fmt: skip
    around = {"tools": found.tools, fields.KWARGS: found.kwargs}
    return turns, {name: json.dumps(value, ensure_ascii=False) for name, value in around.items() if value}


def turns_in(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all turns of a converted row; of a pair, the rejected answer comes last."""
    if "chosen" in row:
        return [*row["chosen"], row["rejected"][-1]]
    return list(row["messages"])


def prompt_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the turns of a converted row before the first answer; of a prompt with a ground truth, all turns."""
    if "ground_truth" in row:
        return list(row["messages"])
    turns: Sequence[dict[str, Any]] = row["chosen"] if "chosen" in row else row["messages"]
    end = next((number for number, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns))
    return list(turns[:end])


def _check_spoken(turns: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError for a turn of the user without text."""
    for turn in turns:
        if turn["role"] == "user" and not str(turn["content"]).strip():
            raise ValueError("an empty user turn")


def _check_prompt(turns: Sequence[Mapping[str, Any]]) -> None:
    spoken = turns[1:] if turns and turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in spoken]
    if roles != ["assistant" if number % 2 else "user" for number in range(len(roles))] or len(roles) % 2 == 0:
        short = " ".join(role[:20] for role in roles[:6]) or "no turns"
        raise ValueError(f"wrong turn order ({short}; expected user, assistant, …, ending in user)")
    if any(not str(turn["content"]).strip() for turn in spoken):
        raise ValueError("an empty turn")


def _verifier(name: str) -> str:
    try:
        return registry.check([name])[0]
    except UsageError as error:
        raise ValueError(f"an unknown verifier: {error}") from None
