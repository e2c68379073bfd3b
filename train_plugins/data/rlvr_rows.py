"""Rows of RLVR data: a prompt, the verifier that judges its responses, and the ground truth."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, UsageError, one_line
from train_plugins.data.encoding import Encoded, check_rendered, token_ids
from train_plugins.data.messages import Row, check_columns, check_no_tools, turns_of
from train_plugins.verifiers import Malformed, Verifiers, registry
from train_plugins.verifiers.truths import COMPARED, read_truth

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

OURS = ("messages", "ground_truth", "verifier", "dataset")
SEPARATOR = " + "
"""Between the names of a row's verifiers, in the column `verifier`; the column `truth` is then a list."""
Names = Mapping[str, str] | tuple[str, ...] | None


def prompt_row(row: Row, verified: bool = True) -> dict[str, Any]:
    """Return {"messages", "verifier", "truth", "extra"} of a row.

    The turns, which end with a user's, come from `messages` or from `prompt`, text or turns; the verifier's name, or
    a list of them, comes from `verifier` or `dataset` (the columns of Tülu 3's RLVR data). `truth` and `extra`, the
    row's other columns, are JSON texts, because a column of a table has a single type. `verified`: whether the row
    must name a verifier. Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    check_no_tools(row)
    prompt = row.get("prompt")
    if not row.get("messages") and prompt is None:
        raise ValueError(f"no 'prompt' and no 'messages' (columns: {', '.join(map(str, row)) or 'none':.200})")
    if isinstance(prompt, str) and not row.get("messages"):
        prompt = [{"role": "user", "content": prompt}]
    turns = turns_of(row.get("messages") or prompt, "messages" if row.get("messages") else "prompt")
    spoken = turns[1:] if turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in spoken]
    expected = ["assistant" if number % 2 else "user" for number in range(len(roles))]
    if roles != expected or len(roles) % 2 == 0:
        short = " ".join(role[:20] for role in roles[:6]) or "no turns"
        raise ValueError(f"wrong turn order ({short}; expected user, assistant, …, ending in user)")
    name, truth = _verifiers(row) if verified else ("", None)
    extra = {key: value for key, value in row.items() if key not in OURS}
    return {"messages": turns, "verifier": name, "truth": _json(truth), "extra": _json(extra)}


def _verifiers(row: Row) -> tuple[str, Any]:
    """Return the columns `verifier` and `truth` of a row; lists hold one truth for each verifier."""
    names, truth = row.get("verifier") or row.get("dataset"), row.get("ground_truth")
    for name in [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else ():
        if SEPARATOR in str(name):
            raise ValueError(f"{name!r} is no verifier's name; give a list of names and as many truths")
    if isinstance(names, str):
        return names, truth
    names = names if isinstance(names, list | tuple) else ()
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("no verifier: neither 'verifier' nor 'dataset' is a text or a list of texts")
    if len(names) > 1 and isinstance(truth, str):
        with contextlib.suppress(ValueError, RecursionError):
            truth = json.loads(truth)
    if len(names) == 1 and not isinstance(truth, list | tuple):
        return names[0], truth
    if not isinstance(truth, list | tuple) or len(truth) != len(names):
        given = f"{len(truth)} truths" if isinstance(truth, list | tuple) else "no list"
        raise ValueError(f"a list of {len(names)} verifiers needs as many truths; 'ground_truth' is {given}")
    if len(set(names)) < len(names):
        raise ValueError(f"a list of verifiers names one twice: {', '.join(names)}")
    return (names[0], truth[0]) if len(names) == 1 else (SEPARATOR.join(names), list(truth))


def names_in(verifier: str) -> list[str]:
    """Return the names in a row's column `verifier`."""
    return verifier.split(SEPARATOR) if verifier else []


def verifiers_of(name: str, truth: Any) -> list[tuple[str, Any]]:
    """Return the verifiers of a row's column `verifier`, each with its truth."""
    names = names_in(name)
    return [(name, truth)] if len(names) == 1 else list(zip(names, truth or (), strict=True))


def in_environment(row: dict[str, Any], names: Collection[str] | None) -> dict[str, Any]:
    """Return the row with its environment, one of `names`; None: rows name none. Raises ValueError."""
    if names is None:
        return row
    name = json.loads(row["extra"]).get("environment")
    if name not in names:
        known = ", ".join(sorted(names))
        raise ValueError(f"{str(name)[:40]!r} in the column 'environment', not one of rlvr.environment ({known})")
    return {**row, "environment": name}


def check_names(verifier: str, names: Names) -> None:
    """Check the names in a row's column `verifier`; `names` is the recipe's `rlvr.verifiers`.

    Raises UsageError, which begins with what the row has: a name that is left out, unknown, or an unseen task.
    """
    for given in names_in(verifier):
        if (name := table(names, [given]).get(given)) is None:
            listed = ", ".join(names or ())
            raise UsageError(f"the verifier {given!r}, which rlvr.verifiers leaves out (it has {listed})")
        try:
            registry.check([name])
        except UsageError as error:
            what = "an " if str(error).startswith("unknown") else f"the verifier {given!r}: "
            raise UsageError(f"{what}{error}") from None


def with_truth(row: dict[str, Any], names: Names) -> dict[str, Any]:
    """Return a row whose ground truth its verifiers can read, if they are built-in ones. Raises ValueError."""
    extra = json.loads(row["extra"])
    for given, truth in verifiers_of(row["verifier"], json.loads(row["truth"])):
        check_truth(table(names, [given]).get(given, "").strip().lower(), truth, extra)
    return row


def check_truth(name: str, truth: Any, row: Row, column: str = "ground_truth") -> None:
    """Raise ValueError for a truth in `column` that the built-in verifier `name` cannot read."""
    if truth is None and name in COMPARED:
        raise ValueError(f"no {column!r}, with which the verifier {name} compares")
    try:
        read_truth(name, truth, row)
    except Malformed as error:
        raise ValueError(f"a {column!r} that the verifier {name} cannot read: {error}") from None


def named(rows: Dataset, names: Names) -> Dataset:
    """Replace the verifiers' names in the data by the registered ones.

    `names` maps names in the data to registered ones, or lists all allowed ones. Raises UsageError as `check_names`
    does: a hook may have replaced rows that were checked as they were read.
    """
    column = list(rows["verifier"])
    named_in = {text: names_in(text) for text in set(column)}
    for text in named_in:
        check_names(text, names)
    chosen = table(names, sorted({name for several in named_in.values() for name in several}))
    registered = dict(zip(chosen, Verifiers(list(chosen.values())).names or (), strict=True))
    joined = {text: SEPARATOR.join(registered[name] for name in several) for text, several in named_in.items()}
    return rows.map(lambda row: {"verifier": joined[row["verifier"]]})


def table(names: Names, in_data: list[str]) -> dict[str, str]:
    """Map the names in the data to verifiers' names, without those that `names` leaves out."""
    if names is None:
        return {name: name for name in in_data}
    if isinstance(names, Mapping):
        return {name: names[name] for name in in_data if name in names}
    allowed = {name.lower() for name in names}
    return {name: name for name in in_data if name.lower() in allowed}


def encode_prompts(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None,
    tools: Mapping[str | None, Sequence[Mapping[str, Any]]] | None = None,
) -> Encoded:  # fmt: skip
    """Return the rows with `prompt` (turns, which TRL renders), without those over `limit` tokens.

    A prompt is never cut, because its end is the question. `tools` are the schemas that prompts show, by the row's
    environment. Raises DataError if no row is left.
    """
    try:
        with_counts = rows.map(_count, fn_kwargs={"tokenizer": tokenizer, "tools": tools}, num_proc=processes)
    except Exception as error:  # Jinja's and the tokenizer's errors have many types
        raise DataError(f"the chat template cannot render the data: {one_line(error)}") from None
    fitting = with_counts.filter(_fits, fn_kwargs={"limit": limit}, num_proc=processes)
    if len(fitting) == 0:
        raise DataError(f"all {len(rows)} prompts are longer than {limit} tokens; raise rlvr.max_prompt_length")
    facts = fitting.with_format("numpy")
    lengths, largest = facts["tokens"], int(max(facts["largest"]))
    fitting = fitting.remove_columns(["tokens", "largest"]).rename_column("messages", "prompt")
    return Encoded(
        fitting,
        len(rows),
        0,
        len(rows) - len(fitting),
        int(sum(lengths)),
        longest=int(max(lengths)),
        largest_id=largest,
    )


def _count(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, tools: Any = None) -> dict[str, int]:
    check_rendered(row, tokenizer)
    shown = tools.get(row.get("environment")) if tools else None
    ids = token_ids(tokenizer, row["messages"], prompt=True, tools=shown)
    return {"tokens": len(ids), "largest": max(ids, default=0)}


def _fits(row: dict[str, Any], limit: int | None) -> bool:
    return limit is None or row["tokens"] <= limit


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
