"""The forms in which public sets keep prompts with a ground truth, brought to `messages`, `ground_truth`, `dataset`.

* Tülu 3: `messages`, `ground_truth` and `dataset` as texts.
* Dolci-Think-RL: `prompt` is the text "user: …", with one "role: text" for each turn; `ground_truth` and `dataset` are
  lists of one.
* Dolci-Instruct-RL: the turns are in `source_prompt`.
* verl: `data_source`, `prompt` with turns, `reward_model` with `ground_truth`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from train_plugins.data.turns import listed, turns

_ROLES = re.compile(r"(?:^|\n)(system|user|assistant):[ \t]*", re.IGNORECASE)


def normalised(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with `messages`, `ground_truth` and `dataset`; its other columns stay. Raises ValueError."""
    found = dict(row)
    reward = found.pop("reward_model", None)
    if isinstance(reward, str):
        reward = _json(reward)
    if isinstance(reward, Mapping) and found.get("ground_truth") is None:
        found["ground_truth"] = reward.get("ground_truth")
    name = next((found.pop(key) for key in ("verifier", "dataset", "data_source") if found.get(key)), None)
    found["dataset"] = _single(name, "dataset")
    found["ground_truth"] = _truth(found.get("ground_truth"))
    found["messages"] = _turns(found)
    for key in ("prompt", "source_prompt", "data_source", "verifier"):
        found.pop(key, None)
    return found


def _turns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    for column in ("messages", "source_prompt", "prompt"):
        value = row.get(column)
        if value is None or (isinstance(value, list | tuple) and not value):
            continue
        if listed(value) is not None:
            return turns(value, column)
        if isinstance(value, str) and value.strip():
            return spoken(value)
        raise ValueError(f"{column!r} that is neither text nor turns")
    raise ValueError(f"no 'messages' and no 'prompt' (columns: {', '.join(map(str, row)) or 'none':.200})")


def spoken(text: str) -> list[dict[str, Any]]:
    """Return the turns of a text such as "user: …", in which each turn starts a line with its role.

    A text that does not start with a role is one turn of the user, and so is one that starts with "assistant:", or with
    "system:" and has no turn of the user: these are words of the question. In a text of the user alone, only the mark
    at its start is one: the question may quote "user:" itself.
    """
    said = text.lstrip("\ufeff \t\r\n")
    marks = list(_ROLES.finditer(said))
    roles = [mark[1].lower() for mark in marks]
    spoken_roles = roles[1:] if roles[:1] == ["system"] else roles
    if not marks or marks[0].start() != 0 or spoken_roles[:1] != ["user"]:
        return [{"role": "user", "content": text}]
    if any(role != ("assistant" if number % 2 else "user") for number, role in enumerate(spoken_roles)):
        marks = marks[: 2 if roles[0] == "system" else 1]
    ends = [*(mark.start() for mark in marks[1:]), len(said)]
    return [
        {"role": mark[1].lower(), "content": said[mark.end() : end].strip("\r\n")}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _single(value: Any, column: str) -> str:
    """Return the text of a value, or of a list of one."""
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(f"{len(value)} values in {column!r}: a row has one verifier here")
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no verifier: none of 'dataset', 'verifier' and 'data_source' is a text")
    return value


def _truth(value: Any) -> Any:
    """Take a truth out of its list of one; longer lists are alternatives, or the tests of a program."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
