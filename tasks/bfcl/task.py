"""The Berkeley Function-Calling Leaderboard, single turn, as OLMo 3 asks it: tools in the prompt, calls as code.

Prompt and decoding follow the handler of allenai/olmes (`CALL_FORMAT=code`), the verdicts the checkers of syntax trees
of the leaderboard. Documents keep `question`, `function` and `ground_truth` as JSON, because their members differ from
row to row.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from olmes_suite.records import Request, Scored
from olmes_suite.scoring import module_beside, scorer
from olmes_suite.tasks.task import SuiteTask, with_system

_HERE = str(Path(__file__))
_calls = module_beside(_HERE, "calls.py")
_checker = module_beside(_HERE, "checker.py")
_golds = module_beside(_HERE, "golds.py")
_PROMPTS: Mapping[str, str] = yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))
_SYNTAX = {"python": "Python 3", "java": "Java 8 SDK", "javascript": "JavaScript"}
_LANGUAGE_NAMES = {"java": "Java", "javascript": "JavaScript"}
_LISTS = ("ArrayList", "Array", "array")


def language(doc: Mapping[str, Any]) -> str:
    """Return python, java or javascript, by the document's id."""
    name = doc["id"]
    return "javascript" if "javascript" in name else "java" if "java" in name else "python"


def category(doc: Mapping[str, Any]) -> str:
    """Return the category, which the id starts with: `live_parallel` for `live_parallel_3-0-0`."""
    return str(doc["id"].rsplit("_", 1)[0])


def functions(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the functions as the leaderboard shows and checks them: Java and JavaScript take text everywhere."""
    found: list[dict[str, Any]] = copy.deepcopy(json.loads(doc["function"]))
    spoken = language(doc)
    for function in found:
        function["description"] += f" Note that the provided function is in {_SYNTAX[spoken]} syntax."
        if spoken != "python":
            for parameter in function["parameters"]["properties"].values():
                _as_text(parameter, spoken)
    return found


def _as_text(parameter: dict[str, Any], spoken: str) -> None:
    kind, name = parameter["type"], _LANGUAGE_NAMES[spoken]
    if kind == "any":
        parameter["description"] += f" This parameter can be of any type of {name} object in string representation."
    else:
        parameter["description"] += f" This is {name} {kind} type parameter in string representation."
    if kind in _LISTS:
        inner = parameter.pop("items")["type"]
        parameter["description"] += f" The list elements are of type {inner}; they are not in string representation."
    if spoken == "javascript" and kind == "dict" and "properties" in parameter:
        schema = json.dumps(parameter.pop("properties"))
        parameter["description"] += (
            f" The dictionary entries have the following schema; they are not in string representation. {schema}"
        )
    parameter["type"] = "string"


def system_prompt(doc: Mapping[str, Any], *, think: bool = False) -> str:
    """Return the leaderboard's system prompt with the document's functions, up to the last of them."""
    tools = [{"type": "function", "function": function} for function in functions(doc)]
    return _PROMPTS["think" if think else "plain"].replace("{functions}", str(tools))


def messages(doc: Mapping[str, Any], *, think: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the turns. A system prompt of the document follows the leaderboard's, before the tag that closes both."""
    turns = [(turn["role"], turn["content"]) for turn in json.loads(doc["question"])[0]]
    system = system_prompt(doc, think=think)
    if turns[0][0] == "system":
        system, turns = f"{system}\n\n\n\n{turns[0][1]}", turns[1:]
    return (("system", f"{system.rstrip()}\n</functions>\n"), *turns)


class ToolsTask(SuiteTask):
    """A category of the leaderboard, whose documents are conversations with a system prompt of their own."""

    think = False
    """Whether the prompt asks for a thought."""

    def requests(self, doc: Mapping[str, Any], doc_id: int, *, chat: bool) -> list[Request]:
        """Build the request of a document: its turns, or their text without a chat template."""
        [request] = super().requests(doc, doc_id, chat=chat)
        if request.messages is None:
            return [request]
        request = replace(request, messages=messages(doc, think=self.think))
        return [request if self.system is None else with_system(request, self.system)]


class ThinkingToolsTask(ToolsTask):
    """The same with the prompt that asks for a thought."""

    think = True


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the system prompt and the turns as plain text."""
    return "\n\n".join(content for _, content in messages(doc))


def doc_to_text_think(doc: Mapping[str, Any]) -> str:
    """Return the same with the prompt that asks for a thought."""
    return "\n\n".join(content for _, content in messages(doc, think=True))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the right calls as JSON, or what is wanted where none is listed."""
    return str(doc["ground_truth"]) if _answers(doc) else "no call" if "irrelevance" in doc["id"] else "a call"


def _answers(doc: Mapping[str, Any]) -> list[dict[str, dict[str, list[Any]]]]:
    text = doc.get("ground_truth")
    return json.loads(text) if text else []


def _decoded(response: str) -> tuple[list[dict[str, dict[str, Any]]] | None, str]:
    try:
        calls = _calls.decode(response)
    except _calls.NoCalls as error:
        return None, str(error)
    return calls, json.dumps(calls, ensure_ascii=False, default=str)


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the calls of a response against the right ones."""
    calls, shown = _decoded(response)
    if calls is None:
        return Scored({"accuracy": 0.0, "decoded": 0.0}, None, failed=True)
    wrong = _checker.problem(
        calls, json.loads(doc["function"]), _answers(doc), category=category(doc), language=language(doc)
    )
    return Scored({"accuracy": float(wrong is None), "decoded": 1.0}, shown)


def _score_presence(wanted: bool) -> Callable[[Mapping[str, Any], str], Scored]:
    def scored(doc: Mapping[str, Any], response: str) -> Scored:
        calls, shown = _decoded(response)
        return Scored({"accuracy": float(bool(calls) == wanted)}, shown)

    return scored


score_irrelevance = scorer()(_score_presence(wanted=False))
score_relevance = scorer()(_score_presence(wanted=True))


def _lines(doc: Mapping[str, Any], answers: list[dict[str, dict[str, list[Any]]]]) -> list[str]:
    declared = {one["name"]: one["parameters"]["properties"] for one in json.loads(doc["function"])}
    return [
        _golds.call(name, _golds.first_right(parameters, declared[name], language(doc)))
        for answer in answers
        for name, parameters in answer.items()
    ]


def _any_call(doc: Mapping[str, Any]) -> str:
    """Return a call without arguments. Some documents of `irrelevance` have no function at all."""
    known = json.loads(doc["function"])
    return str(_golds.call(known[0]["name"] if known else "no_such_function", {}))


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1 unless the leaderboard rejects its own answer."""
    if "irrelevance" in doc["id"]:
        return "None of the functions can be used."
    return str(_golds.response(_lines(doc, _answers(doc)) or [_any_call(doc)]))


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    if "irrelevance" in doc["id"]:
        return str(_golds.response([_any_call(doc)]))
    if "relevance" in doc["id"]:
        return "None of the functions can be used."
    return str(_golds.response([_golds.call("no_such_function", {})] * len(_answers(doc))))
