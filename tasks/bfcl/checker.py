"""Whether calls are among the right ones, by the rules of the leaderboard's checkers of syntax trees.

An answer maps a function to its parameters, and each parameter to the list of values that are right; the empty text
in that list means that the parameter may be left out. Where the listed values have another type than the parameter is
declared with, they are variables, and a value must equal one of them exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.scoring import module_beside

_literals = module_beside(str(Path(__file__)), "literals.py")
_IGNORED = re.compile(r"[ ,./\-_*^]")
PYTHON: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
JAVA: Mapping[str, type] = {
    "byte": int,
    "short": int,
    "integer": int,
    "float": float,
    "double": float,
    "long": int,
    "boolean": bool,
    "char": str,
    "Array": list,
    "ArrayList": list,
    "Set": set,
    "HashMap": dict,
    "Hashtable": dict,
    "Queue": list,
    "Stack": list,
    "String": str,
    "any": str,
}
JAVASCRIPT: Mapping[str, type] = {
    "String": str,
    "integer": int,
    "float": float,
    "Bigint": int,
    "Boolean": bool,
    "dict": dict,
    "array": list,
    "any": str,
}
_LANGUAGES: Mapping[str, tuple[Mapping[str, type], Callable[..., Any] | None, tuple[str, ...]]] = {
    "python": (PYTHON, None, ("array", "tuple")),
    "java": (JAVA, _literals.java, ("Array", "ArrayList")),
    "javascript": (JAVASCRIPT, _literals.javascript, ("array",)),
}
"""Language to its types, its reader of literals, and its types whose elements are checked."""


def problem(
    calls: Sequence[Mapping[str, Any]],
    functions: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    *,
    category: str,
    language: str = "python",
) -> str | None:
    """Return what is wrong with the calls, or None where they are right.

    `category` decides how calls and answers are paired: in any order where it is parallel, otherwise one with one.
    """
    if len(calls) != len(answers):
        return "wrong number of calls"
    left = list(calls)
    for answer in answers:
        name = next(iter(answer))
        described = (
            functions[0] if "multiple" not in category and "parallel" not in category else _find(functions, name)
        )
        found = next((at for at, call in enumerate(left) if _problem(call, described, answer, language) is None), None)
        if found is None:
            return _problem(left[0], described, answer, language) if len(answers) == 1 else f"no call matches {name}"
        del left[found]
    return None


def _find(functions: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((function for function in functions if function["name"] == name), None)


def _problem(
    call: Mapping[str, Any], function: Mapping[str, Any] | None, answer: Mapping[str, Any], language: str
) -> str | None:
    """Check one call. Answers that the rules do not foresee, on which the leaderboard stops, are wrong."""
    try:
        return _call_problem(call, function or {}, next(iter(answer.values())), language)
    except (TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        return f"not comparable: {type(error).__name__}"


def _call_problem(
    call: Mapping[str, Any], function: Mapping[str, Any], right: Mapping[str, Sequence[Any]], language: str
) -> str | None:
    if function["name"] not in call:
        return "wrong function"
    given, declared = call[function["name"]], function["parameters"]["properties"]
    for name in function["parameters"]["required"]:
        if name not in given:
            return f"parameter {name} is missing"
    for name, value in given.items():
        if name not in declared or name not in right:
            return f"unexpected parameter {name}"
        if not _is_right(value, right[name], declared[name], language):
            return f"parameter {name} has a wrong type or value"
    missing = [name for name, values in right.items() if name not in given and "" not in values]
    return f"parameter {missing[0]} is missing" if missing else None


def _is_right(value: Any, right: Sequence[Any], declared: Mapping[str, Any], language: str) -> bool:
    types, read, nested = _LANGUAGES[language]
    kind = declared["type"]
    outer = types[kind]
    inner_kind = declared["items"]["type"] if kind in nested else None
    inner = types[inner_kind] if inner_kind is not None else None
    if read is not None:
        if not isinstance(value, str):
            return False
        value = read(value, kind, inner_kind)
    elif kind == "tuple" and isinstance(value, tuple):
        value = list(value)
    elif kind == "float" and type(value) is int:
        value = float(value)
    fits, variable = _type(value, right, outer, inner)
    if not fits:
        return False
    if variable or outer not in (dict, list, str):
        return value in right
    if outer is str:
        return _plain(value) in [_plain(one) for one in right if isinstance(one, str)]
    if outer is dict:
        return any(_same_dict(value, one) for one in right if one != "")
    return _same_list(value, right, of_dicts=inner is dict)


def _type(value: Any, right: Sequence[Any], outer: type, inner: type | None) -> tuple[bool, bool]:
    """Tell whether a value has the declared type or that of the right values, and whether these are variables."""
    listed = next((type(one) for one in right if one != ""), None)
    if type(value) is not outer:
        return listed is not None and type(value) is listed, True
    variable = listed is not None and listed is not outer
    if inner is None:
        return True, variable
    fits = any(not isinstance(one, list) or all(_type(item, one, inner, None)[0] for item in value) for one in right)
    return fits, variable


def _plain(value: Any) -> Any:
    """Return a text without spaces, case and the punctuation that does not count; other values as they are."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _same_list(value: list[Any], right: Sequence[Any], *, of_dicts: bool) -> bool:
    if not of_dicts:
        return [_plain(item) for item in value] in [[_plain(item) for item in one] for one in right]
    return any(
        len(value) == len(one)
        and all(item_right != "" and _same_dict(item, item_right) for item, item_right in zip(value, one, strict=True))
        for one in right
    )


def _same_dict(value: Mapping[str, Any], right: Mapping[str, Sequence[Any]]) -> bool:
    for key, item in value.items():
        if key not in right or _plain(item) not in [_plain(one) for one in right[key]]:
            return False
    return all(key in value or "" in options for key, options in right.items())
