"""Verifiers of instruction following. The checkers are those of the evaluator's task `ifeval`.

Two forms of ground truth, each a mapping or its JSON: IFEval's own, `{"instruction_id_list": […], "kwargs": […]}`, and
that of the RLVR data of Tülu 3, one constraint `{"func_name": …, arguments…}` (`func_names`). Without a truth the row's
own columns `instruction_id_list` and `kwargs` are read.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.constraints.loose import loose_variants
from olmes_suite.constraints.registry import PROFILES, everything
from olmes_suite.tasks.index import nearest
from train_plugins.verifiers.base import Malformed, shown
from train_plugins.verifiers.task_modules import task
from train_plugins.verifiers.tulu3_constraints import Choice, conditions


def ifeval(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """1 where all instructions are followed in the loose reading: the task's `prompt_level_loose_acc`."""
    return _verified(response, truth, row, "prompt_level_loose_acc")


def ifeval_fraction(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """The share of instructions that are followed in the loose reading: the task's `inst_level_loose_acc`."""
    return _verified(response, truth, row, "inst_level_loose_acc")


def ifeval_strict(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """1 where all instructions are followed as the response stands: the task's `prompt_level_strict_acc`."""
    return _verified(response, truth, row, "prompt_level_strict_acc")


def _verified(response: str, truth: Any, row: Mapping[str, Any], metric: str) -> float:
    found = _mapping(truth, row)
    if "func_name" in found:
        return _constraint(response, found, row, loose="loose" in metric)
    return float(task("ifeval").score.one(_document(found, row), response).scores[metric])


def _constraint(response: str, found: Mapping[str, Any], row: Mapping[str, Any], loose: bool) -> float:
    """One constraint of the RLVR data. A constraint that is two instructions must hold in one and the same reading."""
    wanted = conditions(found)
    texts = loose_variants(response) if loose else [response]
    if isinstance(wanted, Choice):
        return float(any(wanted.followed(text) for text in texts))
    doc = _document(
        {"instruction_id_list": [name for name, _ in wanted], "kwargs": [given for _, given in wanted]}, row
    )
    return float(any(all(task("ifeval").followed(doc, [text])) for text in texts if text.strip()))


def _document(found: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    names: Any = found.get("instruction_id_list", found.get("instruction_id"))
    arguments: Any = found.get("kwargs")
    if not _is_list(names) or not names:
        raise Malformed("expected `func_name`, or a list `instruction_id_list`")
    if not _is_list(arguments) or len(arguments) != len(names):
        raise Malformed(f"`kwargs` must have one entry for each of the {len(names)} instructions")
    for name, given in zip(names, arguments, strict=True):
        _check(str(name))
        if given is not None and not isinstance(given, Mapping):
            raise Malformed(f"the arguments of {name} are no mapping: {shown(given)}")
    return {
        "key": row.get("key", row.get("row", 0)), "prompt": _prompt(row),
        "instruction_id_list": list(names), "kwargs": list(arguments),
    }  # fmt: skip


def _check(name: str) -> None:
    known = task("ifeval").checkers().INSTRUCTION_DICT
    if name in known:
        return
    if any(name in everything(profile) for profile in PROFILES):
        raise Malformed(f"{name!r} is a constraint of the unseen suite, which is for the end")
    raise Malformed(f"unknown instruction {name!r}{nearest(name, sorted(known))}")


def _mapping(truth: Any, row: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = row if truth is None else truth
    if isinstance(found, str):
        found = _parsed(found)
    if _is_list(found) and len(found) == 1:
        found = _parsed(found[0]) if isinstance(found[0], str) else found[0]
    if not isinstance(found, Mapping):
        raise Malformed("expected a mapping, or its JSON")
    return found


def _parsed(text: str) -> Any:
    """JSON; or a Python literal, as which later data sets of the same authors write it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise Malformed("it is no JSON") from None


def _prompt(row: Mapping[str, Any]) -> str:
    """The last user's turn of the row, for the instruction to repeat it."""
    prompt = row.get("prompt", row.get("messages", ""))
    if isinstance(prompt, str):
        return prompt
    turns = [turn["content"] for turn in prompt if isinstance(turn, Mapping) and turn.get("role") == "user"]
    return str(turns[-1]) if turns else ""


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def prepare() -> None:
    """Load the checkers before the clock runs."""
    task("ifeval").checkers()
