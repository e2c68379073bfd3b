"""Verifiers of instruction following, with the checkers of the evaluator's task `ifeval` and those of `iftrain`.

A ground truth has one of two forms, each a mapping or its JSON: IFEval's form, `{"instruction_id_list": […],
"kwargs": […]}`, or that of the RLVR data of Tülu 3, one constraint `{"func_name": …, arguments…}`
(`tulu3_constraints`). Without a truth the row's columns `instruction_id_list` and `kwargs` are read.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from olmes_suite.constraints.loose import loose_variants
from olmes_suite.constraints.registry import PROFILES, everything
from olmes_suite.errors import OlmesError
from olmes_suite.tasks.index import nearest
from train_plugins.verifiers import iftrain
from train_plugins.verifiers.base import Malformed, shown
from train_plugins.verifiers.task_modules import task
from train_plugins.verifiers.tulu3_constraints import Choice, conditions

COLUMNS = ("instruction_id_list", "instruction_id", "kwargs")
"""Columns of a row without a truth that are one."""


def ifeval(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return 1 if the response follows all instructions in the loose sense: the task's `prompt_level_loose_acc`."""
    return _verified(response, truth, row, "prompt_level_loose_acc")


def ifeval_fraction(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return the share of instructions followed in the loose sense: the task's `inst_level_loose_acc`."""
    return _verified(response, truth, row, "inst_level_loose_acc")


def ifeval_strict(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return 1 if the unchanged response follows all instructions: the task's `prompt_level_strict_acc`."""
    return _verified(response, truth, row, "prompt_level_strict_acc")


def ifeval_strict_fraction(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return the share of instructions that the unchanged response follows: the task's `inst_level_strict_acc`."""
    return _verified(response, truth, row, "inst_level_strict_acc")


def _verified(response: str, truth: Any, row: Mapping[str, Any], metric: str) -> float:
    fields = _mapping(truth, row)
    if "func_name" in fields:
        return _constraint(response, fields, row, loose="loose" in metric)
    followed = _followed(_document(fields, row), loose_variants(response) if "loose" in metric else [response])
    return float(all(followed)) if "prompt" in metric else sum(followed) / len(followed)


def _followed(doc: Mapping[str, Any], variants: Sequence[str]) -> list[bool]:
    """Return, for each instruction, whether a variant of the response follows it."""
    pairs = list(zip(doc["instruction_id_list"], doc["kwargs"], strict=True))
    of_task = [(name, kwargs) for name, kwargs in pairs if name not in iftrain.TABLE]
    names, arguments = [name for name, _ in of_task], [kwargs for _, kwargs in of_task]
    found = iter(task("ifeval").followed({**doc, "instruction_id_list": names, "kwargs": arguments}, variants))
    texts = list(dict.fromkeys(variants))
    return [
        any(iftrain.follows(name, kwargs, text) for text in texts) if name in iftrain.TABLE else next(found)
        for name, kwargs in pairs
    ]


def check_constraints(truth: Any, row: Mapping[str, Any]) -> None:
    """Raise Malformed for constraints that cannot be read."""
    fields = _mapping(truth, row)
    if "func_name" not in fields:
        _check_values(_document(fields, row))
    elif not isinstance(required := conditions(fields), Choice):
        _check_values(_required(required, row))


def _required(required: Sequence[tuple[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    names, arguments = [name for name, _ in required], [kwargs for _, kwargs in required]
    return _document({"instruction_id_list": names, "kwargs": arguments}, row)


def _constraint(response: str, constraint: Mapping[str, Any], row: Mapping[str, Any], loose: bool) -> float:
    """Check a constraint of the RLVR data; if it stands for two instructions, one variant must follow both."""
    required = conditions(constraint)
    texts = loose_variants(response) if loose else [response]
    if isinstance(required, Choice):
        return float(any(required.followed(text) for text in texts))
    doc = _required(required, row)
    return float(any(all(task("ifeval").followed(doc, [text])) for text in texts if text.strip()))


def _document(fields: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    names = fields.get("instruction_id_list", fields.get("instruction_id"))
    arguments = fields.get("kwargs")
    if not _is_list(names) or not names:
        raise Malformed("expected `func_name`, or a list `instruction_id_list`")
    if not _is_list(arguments) or len(arguments) != len(names):
        raise Malformed(f"`kwargs` must have one entry for each of the {len(names)} instructions")
    for name, kwargs in zip(names, arguments, strict=True):
        _check(str(name))
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise Malformed(f"the arguments of {name} are not a mapping: {shown(kwargs)}")
        _check_arguments(str(name), kwargs or {})
    return {
        "key": row.get("key", row.get("row", 0)), "prompt": _prompt(row),
        "instruction_id_list": list(names), "kwargs": list(arguments),
    }  # fmt: skip


def _check(name: str) -> None:
    known = {*task("ifeval").checkers().INSTRUCTION_DICT, *iftrain.TABLE}
    if name in known:
        return
    if any(name in everything(profile) for profile in PROFILES):
        raise Malformed(f"{name!r} is a constraint of the unseen suite, which is for the end")
    raise Malformed(f"unknown instruction {name!r}{nearest(name, sorted(known))}")


def _check_arguments(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise Malformed for a missing argument: IFEval's checkers replace it by a random one, which nobody asked for."""
    if name in iftrain.TABLE:
        iftrain.arguments_of(name, kwargs)
        iftrain.require(name)
        return
    needed = task("ifeval").checkers().INSTRUCTION_DICT[name](name).get_instruction_args_keys()
    missing = [key for key in needed if not kwargs.get(key)]
    if missing:
        raise Malformed(f"{name} lacks its argument {missing[0]!r}")


def _check_values(doc: Mapping[str, Any]) -> None:
    """Raise Malformed for arguments from which the task's checkers cannot be built, such as texts for numbers."""
    for name, kwargs in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        if name in iftrain.TABLE:
            continue
        for key, value in (kwargs or {}).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Malformed(f"{name}: {key} must be a number, not {shown(value)}")
        try:
            task("ifeval").followed({**doc, "instruction_id_list": [name], "kwargs": [kwargs]}, [])
        except OlmesError:
            raise
        except Exception as error:  # lm-eval's checkers raise many types
            raise Malformed(f"{name} cannot use its arguments {shown(kwargs)}: {shown(str(error))}") from None


def _mapping(truth: Any, row: Mapping[str, Any]) -> Mapping[str, Any]:
    value: Any = row if truth is None else truth
    if isinstance(value, str):
        value = _parsed(value)
    if _is_list(value) and len(value) == 1:
        value = _parsed(value[0]) if isinstance(value[0], str) else value[0]
    if not isinstance(value, Mapping):
        raise Malformed("expected a mapping, or its JSON")
    return value


def _parsed(text: str) -> Any:
    """Parse JSON, or a Python literal, the form in later data sets of the Tülu 3 authors. Raises Malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise Malformed("it is not JSON") from None


def _prompt(row: Mapping[str, Any]) -> str:
    """Return the last user turn of the row, for the instruction to repeat the prompt."""
    prompt = row.get("messages") or row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    given = prompt if _is_list(prompt) else ()
    turns = [turn.get("content") for turn in given if isinstance(turn, Mapping) and turn.get("role") == "user"]
    return str(turns[-1] or "") if turns else ""


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def prepare() -> None:
    """Load the checkers outside any verdict's time."""
    task("ifeval").checkers()
