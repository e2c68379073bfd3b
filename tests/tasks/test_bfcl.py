"""BFCL: decoding of calls, verdicts, literals, prompts, files of JSON lines, and bounded time for hostile answers."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from task_parity import TASKS, sample_docs, task

from olmes_suite.errors import DataError, MissingData
from olmes_suite.scoring import module_beside
from olmes_suite.tasks import index, json_files, suites
from olmes_suite.tasks.documents import DataSource, DataSpec, load_split

BFCL = module_beside(str(TASKS / "bfcl" / "task.py"), "task.py")
CALLS = module_beside(str(TASKS / "bfcl" / "task.py"), "calls.py")
LITERALS = module_beside(str(TASKS / "bfcl" / "task.py"), "literals.py")
NAMES = sorted(name for name, entry in index.index().items() if name.startswith("olmo3_bfcl_") and not entry.members)
TIDE = {
    "name": "tides.next",
    "description": "Next high tide.",
    "parameters": {
        "type": "dict",
        "properties": {
            "harbour": {"type": "string", "description": "Harbour."},
            "days": {"type": "integer", "description": "Days."},
            "level": {"type": "float", "description": "Metres."},
            "boats": {"type": "array", "items": {"type": "string"}, "description": "Boats."},
            "route": {"type": "dict", "description": "Route."},
        },
        "required": ["harbour"],
    },
}


SCORERS = {"right": BFCL.score, "irrelevance": BFCL.score_irrelevance, "relevance": BFCL.score_relevance}


def accuracy(name: str, response: str, **doc: Any) -> float | None:
    return SCORERS[name].one(doc, response).scores["accuracy"]


def judged(response: str, answers: list[Any], id: str = "simple_0", functions: list[Any] | None = None) -> float | None:
    row = {"id": id, "function": json.dumps(functions or [TIDE]), "ground_truth": json.dumps(answers)}
    return accuracy("right", response, **row)


@pytest.mark.parametrize("name", NAMES)
def test_sample_golds_score_one_and_wrong_answers_nothing(name: str) -> None:
    loaded = task(name, DataSource(sample=True))
    docs = sample_docs(name)
    assert docs
    for doc in docs:
        assert loaded.scorer.one(doc, loaded.keys.gold(doc)).scores["accuracy"] == 1.0
        assert loaded.scorer.one(doc, loaded.keys.corrupt(doc)).scores["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("response", "calls"),
    [
        ("f(a=1)", [{"f": {"a": 1}}]),
        (
            "<think>f(a=2)</think>\n<function_calls>\nm.f(a=1)\ng(b='x')  # why\n</function_calls>",
            [{"m.f": {"a": 1}}, {"g": {"b": "x"}}],
        ),
        (
            "f(a=-1.5, b=[1, (2,)], c={'k': None}, d=not True)",
            [{"f": {"a": -1.5, "b": [1, (2,)], "c": {"k": None}, "d": False}}],
        ),
        ("f(a=60*60, b='x' + 'y')", [{"f": {"a": 3600, "b": "xy"}}]),
        ("[f(a=1), g(b=2)]", [{"f": {"a": 1}}]),
        ("x = f(1, a=2)", [{"f": {"a": 2}}]),
        ("<think>x</think><think>y</think>f(a=1)", [{"f": {"a": 1}}]),
        ("", []),
    ],
)
def test_one_call_of_each_line(response: str, calls: list[Any]) -> None:
    assert CALLS.decode(response) == calls


@pytest.mark.parametrize(
    "response",
    [
        "No function fits.",
        "f(a=1",
        "f(a=true)",
        "f(\n  a=1,\n)",
        "f(a=open('x'))",
        "f(a=9**9**9)",
        "f(a='x'*10**9)",
        "f(a=[x for x in y])",
        "f(**{'a': 1}) g",
        "f()(a=1)",
        "f(a={{}: 1})",
        "f(a=1/0)",
        "f(from='x')",
        "<think>f(a=1)",
        "f(a=1)\n\ng(b=2)",
        "f(a=1)\n  g(b=2)",
        "f(a=-'x')",
        "f(a=\x00)",
        "f(a={**b})",
        "f(a=" + "1" * 5000 + ")",
    ],
)
def test_what_is_no_call_does_not_decode(response: str) -> None:
    with pytest.raises(CALLS.NoCalls):
        CALLS.decode(response)
    assert accuracy("irrelevance", response, id="irrelevance_0") == 1.0
    assert accuracy("relevance", response, id="live_relevance_0") == 0.0


def test_an_empty_answer_is_no_call() -> None:
    assert accuracy("irrelevance", "<function_calls>\n</function_calls>", id="irrelevance_0") == 1.0
    assert accuracy("relevance", "", id="live_relevance_0") == 0.0


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ("harbour='Leith', days=2", True),
        ("harbour=' LEITH.', days=2", True),
        ("harbour='Leith'", False),
        ("days=2", False),
        ("harbour='Leith', days=2.0", False),
        ("harbour='Leith', days='2'", False),
        ("harbour='Leith', days=2, level=3", True),
        ("harbour='Leith', days=2, level=3.5", False),
        ("harbour='Leith', days=2, boats=['Ark', 'ebb']", True),
        ("harbour='Leith', days=2, boats=('Ark', 'ebb')", False),
        ("harbour='Leith', days=2, boats=['ebb', 'Ark']", False),
        ("harbour='Leith', days=2, boats=[1]", False),
        ("harbour='Leith', days=2, route={'to': 'Crail'}", True),
        ("harbour='Leith', days=2, route={'to': 'Crail', 'by': 'SEA'}", True),
        ("harbour='Leith', days=2, route={'by': 'sea'}", False),
        ("harbour='Leith', days=2, wind=1", False),
    ],
)
def test_verdicts(arguments: str, right: bool) -> None:
    answer = {
        "harbour": ["Leith"],
        "days": [2],
        "level": [3.0, ""],
        "boats": [["ark", "ebb"], ""],
        "route": [{"to": ["Crail"], "by": ["sea", ""]}, ""],
    }
    assert judged(f"tides.next({arguments})", [{"tides.next": answer}]) == float(right)


def test_parallel_calls_in_any_order_and_their_number() -> None:
    first, second = "tides.next(harbour='A')", "tides.next(harbour='B')"
    answers = [{"tides.next": {"harbour": ["A"]}}, {"tides.next": {"harbour": ["B"]}}]
    assert judged(f"{second}\n{first}", answers, "parallel_0") == 1.0
    assert judged(f"{first}\n{first}", answers, "parallel_0") == 0.0
    assert judged(first, answers, "parallel_0") == 0.0
    assert judged(f"{first}\n{second}", answers[:1]) == 0.0


@pytest.mark.parametrize(
    ("text", "kind", "inner", "value"),
    [
        ("5L", "long", None, 5),
        ("5", "long", None, "5"),
        ("2.5f", "float", None, 2.5),
        ("2.5", "float", None, "2.5"),
        ("true", "boolean", None, True),
        ("True", "boolean", None, "True"),
        ("a", "char", None, "a"),
        ("new int[]{1, 2}", "Array", "integer", [1, 2]),
        ('new String[]{"a"}', "Array", "String", ['"a"']),
        ('new ArrayList<String>(Arrays.asList("a", "b"))', "ArrayList", "String", ["a", "b"]),
        ("new ArrayList<Integer>() {{ add(1); add(2); }}", "ArrayList", "integer", [1, 2]),
        ('new HashMap<String, Integer>() {{ put("a", 1); }}', "HashMap", None, {"a": 1}),
        ("new HashMap<>()", "HashMap", None, {}),
    ],
)
def test_java_literals(text: str, kind: str, inner: str | None, value: Any) -> None:
    assert LITERALS.java(text, kind, inner) == value


@pytest.mark.parametrize(
    ("text", "kind", "inner", "value"),
    [
        ("7n", "Bigint", None, 7),
        ("'a'", "String", None, "a"),
        ("1.5", "float", None, 1.5),
        ("1e3", "float", None, "1e3"),
        ("[1, 'a, b', true]", "array", None, [1, "'a", "b'", True]),
        ("[[1, 2], [3]]", "array", "array", [[1, 2], [3]]),
        ("{a: 1, 'b': [1, 2], c: x}", "dict", None, {"a": 1, "b": [1, 2], "c": "x"}),
        ("handler", "dict", None, "handler"),
    ],
)
def test_javascript_literals(text: str, kind: str, inner: str | None, value: Any) -> None:
    assert LITERALS.javascript(text, kind, inner) == value


@pytest.mark.parametrize(
    "response",
    [
        "f(a=" + "[" * 10_000,
        "f(a=" + "-" * 50_000 + "1)",
        "{" * 10_000,
        "f(a='" + "x" * 1_000_000 + "')",
        "f()" * 300_000,
        "f(a=1)\n" * 20_000,
        "<think>" * 100_000,
        "a." * 40_000 + "b()",
        "f(a=" + "1+" * 20_000 + "1)",
    ],
)
def test_a_megabyte_or_deep_nesting_takes_bounded_time(response: str) -> None:
    start = time.perf_counter()
    assert judged(response, [{"tides.next": {"harbour": ["A"]}}]) == 0.0
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "text",
    [
        "[[" + "[1],[" * 700,
        "{" + "a:" * 1900,
        "{" + "a,b:" * 900 + "}",
        "new HashMap<" * 300,
        "new HashMap<>() {" + " " * 3900,
    ],
)
def test_hostile_literals_take_bounded_time(text: str) -> None:
    start = time.perf_counter()
    for read, kinds in ((LITERALS.java, ("ArrayList", "Array", "HashMap")), (LITERALS.javascript, ("array", "dict"))):
        for kind in kinds:
            read(text, kind)
    assert time.perf_counter() - start < 2


def test_the_prompt_is_a_system_turn_before_that_of_the_document() -> None:
    loaded = task("olmo3_bfcl_live_simple", DataSource(sample=True))
    [doc] = sample_docs("olmo3_bfcl_live_simple")
    [request] = loaded.requests(doc, 0, chat=True)
    assert request.messages is not None
    (role, system), (_, user) = request.messages
    assert role == "system" and user == "tide for anstruther tmrw?"
    assert system.endswith("}}]\n\n\n\nYou help sailors. Be brief.\n</functions>\n")
    assert "that you can invoke.\n<functions>\n[{'type'" in system
    assert "[{'type': 'function', 'function': {'name': 'tides.next_high'" in system
    assert "Python 3 syntax." in system and "<function_calls>\nfunc_name1(" in system
    [thinking] = task("olmo3_bfcl_think_live_simple", DataSource(sample=True)).requests(doc, 0, chat=True)
    assert thinking.messages is not None
    assert "<think>\nyour reasoning here\n</think>[func_name1(" in thinking.messages[0][1]
    assert "You should only return the function calls" not in thinking.messages[0][1]
    assert (request.temperature, request.max_tokens) == (0.001, 131072)


def test_java_parameters_are_shown_as_text() -> None:
    [doc] = sample_docs("olmo3_bfcl_java")
    [function] = BFCL.functions(doc)
    assert function["parameters"]["properties"]["labels"] == {
        "type": "string",
        "description": "Labels of the reading. This is Java ArrayList type parameter in string representation."
        " The list elements are of type String; they are not in string representation.",
    }


def test_the_suite_names_both_groups() -> None:
    assert [entry.task for entry in suites.load("tools").tasks] == ["olmo3_bfcl_non_live", "olmo3_bfcl_live"]


LISTED = [{"rows": ["b_v3.json", "b_v4.json"], "answers": ["answers/b_v3.json", "answers/b_v4.json"]}]


def written(folder: Path, rows: list[str], answers: list[str] | None) -> DataSpec:
    place = folder / "org/set"
    (place / "answers").mkdir(parents=True)
    (place / "b_v4.json").write_text("\n".join(rows), "utf-8")
    if answers is not None:
        (place / "answers/b_v4.json").write_text("\n".join(answers) + "\n", "utf-8")
    return DataSpec("org/set", "b", json_files=LISTED)


def test_rows_of_json_lines_are_joined_with_their_answers(tmp_path: Path) -> None:
    spec = written(
        tmp_path,
        ['{"id": "a", "q": [1, {"x": "é"}]}', '{"id": "b", "q": 2}'],
        ['{"id": "b", "t": []}', '{"id": "a", "t": {}}'],
    )
    table = load_split(DataSource((tmp_path,)), spec, "test")
    assert table.to_pylist() == [{"id": "a", "t": "{}", "q": '[1, {"x": "é"}]'}, {"id": "b", "t": "[]", "q": "2"}]


@pytest.mark.parametrize(
    ("rows", "answers", "message"),
    [
        (['{"id": "a"}', "{"], ['{"id": "a"}'], "b_v4.json, line 2: not JSON"),
        (["[1]"], ['{"id": "a"}'], "b_v4.json, line 1: expected an object with a text `id`"),
        (['{"id": "a"}'], ['{"id": "b"}'], "has no answer for 'a'"),
    ],
)
def test_damaged_json_lines_are_one_line(tmp_path: Path, rows: list[str], answers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_split(DataSource((tmp_path,)), written(tmp_path, rows, answers), "test")


def test_a_missing_file_of_answers_is_missing_data(tmp_path: Path) -> None:
    spec = written(tmp_path, ['{"id": "a"}'], None)
    assert json_files.find(tmp_path / "org/set", LISTED) == []
    with pytest.raises(MissingData, match=r"olmes data pull"):
        load_split(DataSource((tmp_path,)), spec, "test")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("bfcl_eval") is None, reason="bfcl-eval is not on the path")
def test_verdicts_equal_those_of_bfcl_eval(capsys: pytest.CaptureFixture[str]) -> None:
    import compare_bfcl

    package = compare_bfcl.folder()
    assert package is not None
    counts, differences, _ = compare_bfcl.compare(package)
    assert sum(counts.values()) > 100_000
    assert differences == []
    number, read_otherwise = compare_bfcl.compare_literals(package)
    assert len(read_otherwise) < number / 10_000
    sys.modules.pop("bfcl_eval.constants.model_config", None)
