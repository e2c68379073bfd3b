"""RLVR's rows: a prompt, the verifier that judges the responses, and the truth that it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import DataError, UsageError, one_line
from train_plugins.data.encoding import Encoded, token_ids
from train_plugins.data.messages import Row, check_columns, turns_of
from train_plugins.verifiers import Verifiers

OURS = ("messages", "ground_truth", "verifier", "dataset")
COMPARED = ("gsm8k", "math", "string")
"""Verifiers that read nothing but the ground truth."""
Names = Mapping[str, str] | tuple[str, ...] | None


def prompt_row(row: Row) -> dict[str, Any]:
    """{"messages", "verifier", "truth", "extra"}: the turns up to a user's, and JSON texts of what the verifier gets.

    `prompt` is text or turns, `messages` are turns; `verifier` or `dataset` names the verifier (Tülu's RLVR columns);
    `extra` are the row's other columns. JSON, because the columns of a table have one type.
    Raises ValueError saying what is wrong.
    """
    check_columns(row)
    prompt = row.get("prompt")
    if isinstance(prompt, str) and not row.get("messages"):
        prompt = [{"role": "user", "content": prompt}]
    turns = turns_of(row.get("messages") or prompt, "messages" if row.get("messages") else "prompt")
    spoken = turns[1:] if turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in spoken]
    expected = ["assistant" if number % 2 else "user" for number in range(len(roles))]
    if roles != expected or len(roles) % 2 == 0:
        short = " ".join(role[:20] for role in roles[:6]) or "no turns"
        raise ValueError(f"wrong turn order ({short}; expected user, assistant, …, ending in user)")
    name = row.get("verifier") or row.get("dataset")
    if not isinstance(name, str):
        raise ValueError("no 'verifier' (or 'dataset') that names one")
    extra = {key: value for key, value in row.items() if key not in OURS}
    return {"messages": turns, "verifier": name, "truth": _json(row.get("ground_truth")), "extra": _json(extra)}


def named(rows: Any, names: Names) -> Any:
    """The rows with verifiers by their own names: `names` maps what the data says, or lists all that are allowed.

    Raises UsageError for a verifier that is unknown, left out or a task of the unseen suite, DataError for a row
    without the ground truth that its verifier compares with.
    """
    said = list(rows["verifier"])
    table = _table(names, sorted(set(said)))
    found = {name: own for name, own in zip(table, Verifiers(list(table.values())).names or (), strict=True)}
    for number, (name, truth) in enumerate(zip(said, rows["truth"], strict=True)):
        if name not in found:
            raise UsageError(f"row {number} names the verifier {name!r}, which rlvr.verifiers leaves out")
        if truth == "null" and found[name] in COMPARED:
            raise DataError(f"row {number} has no 'ground_truth', with which the verifier {found[name]} compares")
    return rows.map(lambda row: {"verifier": found[row["verifier"]]})


def _table(names: Names, said: list[str]) -> dict[str, str]:
    """What the data says to a verifier's name; what is left out is not in it."""
    if names is None:
        return {name: name for name in said}
    if isinstance(names, Mapping):
        return {name: names[name] for name in said if name in names}
    allowed = {name.lower() for name in names}
    return {name: name for name in said if name.lower() in allowed}


def encode_prompts(rows: Any, tokenizer: Any, limit: int | None, processes: int | None) -> Encoded:
    """Rows with `prompt` (turns; TRL renders them), without those over `limit` tokens. Raises DataError if none is.

    A prompt is never cut: its end is the question.
    """
    try:
        counted = rows.map(_count, fn_kwargs={"tokenizer": tokenizer}, num_proc=processes)
    except Exception as error:  # Jinja's and the tokenizer's errors have many types
        raise DataError(f"the chat template cannot render the data: {one_line(error)}") from None
    kept = counted.filter(_fits, fn_kwargs={"limit": limit}, num_proc=processes)
    if len(kept) == 0:
        raise DataError(f"all {len(rows)} prompts are longer than {limit} tokens; raise rlvr.max_prompt_length")
    facts = kept.with_format("numpy")
    lengths, largest = facts["tokens"], int(max(facts["largest"]))
    kept = kept.remove_columns(["tokens", "largest"]).rename_column("messages", "prompt")
    return Encoded(
        kept, len(rows), 0, len(rows) - len(kept), int(sum(lengths)), longest=int(max(lengths)), largest_id=largest
    )


def _count(row: dict[str, Any], tokenizer: Any) -> dict[str, int]:
    ids = token_ids(tokenizer, row["messages"], prompt=True)
    return {"tokens": len(ids), "largest": max(ids, default=0)}


def _fits(row: dict[str, Any], limit: int | None) -> bool:
    return limit is None or row["tokens"] <= limit


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
