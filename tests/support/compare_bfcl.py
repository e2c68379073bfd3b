"""Compare the verdicts of `tasks/bfcl` with those of the package `bfcl-eval`, over all possible answers.

    PYTHONPATH=.:FOLDER_OF_THE_UNPACKED_WHEEL python tests/support/compare_bfcl.py

The wheel of `bfcl-eval` is enough, unpacked: the modules that its checkers do not need are replaced here, so that none
of its dependencies is installed. Each possible answer is turned into calls, right ones and changed ones.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from olmes_suite.scoring import module_beside

BFCL = Path(__file__).parents[2] / "tasks/bfcl/task.py"
CATEGORIES = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
STRANGE: tuple[Any, ...] = (
    "",
    "x",
    "Main St.",
    0,
    1,
    -1,
    1.0,
    True,
    None,
    [],
    [1],
    ["a"],
    [[1]],
    {},
    {"a": 1},
    [{}],
    [{"a": ["b"]}],
    (),
    (1, 2),
    "true",
    "5L",
    "2.5f",
    "7n",
    "new int[]{1, 2}",
    "new ArrayList<>(Arrays.asList(1, 2))",
    "[1, 2]",
    "[[1, 2], [3, 4]]",
    '["a", "b"]',
    "{}",
    "{'a': 1, 'b': [1]}",
    'new HashMap<String, Integer>() {{ put("a", 1); put("b", 2); }}',
    'new ArrayList<String>() {{ add("a"); }}',
    "new Array(1, 2)",
    "new HashMap<>()",
    "new ArrayList<>()",
    "1e3",
    "'c'",
)


def folder() -> Path | None:
    """Return the folder of `bfcl-eval`, if it is on the path; its code is not imported."""
    spec = importlib.util.find_spec("bfcl_eval")
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def checker() -> Any:
    """Import the package's checker with a stand-in for its table of models, which imports every vendor's client."""
    stub = types.ModuleType("bfcl_eval.constants.model_config")

    class Any_(dict):  # type: ignore[type-arg]
        def __missing__(self, key: str) -> Any:
            return types.SimpleNamespace(underscore_to_dot=False)

    stub.MODEL_CONFIG_MAPPING = Any_()  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval import ast_checker

    def verdict(functions: Any, calls: Any, answers: Any, language: str, category: str) -> bool:
        try:
            spoken = Language[language.upper()]
            return bool(ast_checker.ast_checker(functions, calls, answers, spoken, category, "m")["valid"])
        except Exception:  # the leaderboard stops; such a response is wrong here
            return False

    return verdict


def documents(data: Path, category: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (id, functions, answers)."""
    name = f"BFCL_v4_{category}.json"
    answers = [json.loads(line) for line in (data / "possible_answer" / name).read_text("utf-8").splitlines()]
    truths = {row["id"]: row["ground_truth"] for row in answers}
    for line in (data / name).read_text("utf-8").splitlines():
        row = json.loads(line)
        yield row["id"], row["function"], truths[row["id"]]


def changed(calls: list[Any], rng: random.Random, pool: list[Any]) -> Iterator[list[Any]]:
    """Yield the calls with one argument changed, dropped, added or of another type, and with calls changed."""
    yield calls
    yield list(reversed(calls))
    yield calls[:-1]
    yield [*calls, calls[0]]
    for at, call in enumerate(calls):
        [(name, arguments)] = call.items()

        def put(new: dict[str, Any], name: str = name, at: int = at) -> list[Any]:
            return [*calls[:at], {name: new}, *calls[at + 1 :]]

        yield put({}, name + "x")
        yield put({**arguments, "extra": 1})
        for key, value in arguments.items():
            yield put({k: v for k, v in arguments.items() if k != key})
            for other in [*rng.sample(STRANGE, 6), *rng.sample(pool, 2), *near(value)]:
                yield put({**arguments, key: other})


def near(value: Any) -> Iterator[Any]:
    """Yield values that are almost the same."""
    match value:
        case bool():
            yield from (not value, int(value), str(value))
        case int() | float():
            yield from (float(value), str(value), value + 1)
        case str():
            yield from (value.upper(), f" {value}.", value + "s", f"'{value}'", f'"{value}"', [value])
        case list():
            yield from (tuple(value), value[:-1], value[::-1], [*value, *value[:1]], [str(v) for v in value])
            yield [v.upper() if isinstance(v, str) else v for v in value]
            if value and isinstance(value[0], dict):
                yield from ([{**value[0], "more": 1}, *value[1:]], [{}, *value[1:]])
        case dict():
            yield from ({**value, "more": 1}, dict(list(value.items())[:-1]), {k: str(v) for k, v in value.items()})


def compare(package: Path) -> tuple[Counter[str], list[str], Counter[str]]:
    """Compare every category. Returns counts of verdicts, the differences, and the golds that both reject."""
    verdict, task = checker(), module_beside(str(BFCL), "task.py")
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    differences: list[str] = []
    for category in CATEGORIES:
        rows = list(documents(package / "data", category))
        pool = [v for _, _, truth in rows for one in truth for vs in next(iter(one.values())).values() for v in vs]
        rng = random.Random(category)
        for name, functions, answers in rows:
            doc = {"id": name, "function": json.dumps(functions), "ground_truth": json.dumps(answers)}
            spoken = task.language(doc)
            declared = {one["name"]: one["parameters"]["properties"] for one in functions}
            gold = [
                {called: task._golds.first_right(parameters, declared[called], spoken)}
                for answer in answers
                for called, parameters in answer.items()
            ]
            for number, calls in enumerate(changed(gold, rng, pool)):
                theirs = verdict(functions, calls, answers, spoken, category)
                ours = task._checker.problem(calls, functions, answers, category=category, language=spoken) is None
                counts[f"{category} {'right' if theirs else 'wrong'}"] += 1
                if ours != theirs:
                    differences.append(f"{name}: theirs {theirs}, ours {ours}: {calls}")
                if number == 0 and not theirs:
                    rejected[category] += 1
    return counts, differences, rejected


PIECES = (
    "1",
    "-2",
    "3.5",
    "4L",
    "5f",
    "6n",
    "1e3",
    "true",
    "false",
    '"a"',
    "'b'",
    '"x, y"',
    "name",
    "null",
    "[",
    "]",
    "[1, 2]",
    "{",
    "}",
    "{{",
    "}}",
    "(",
    ")",
    "))",
    ",",
    ", ",
    ": ",
    ";",
    " ",
    "\n",
    "new ",
    "ArrayList<String>",
    "ArrayList<>",
    "HashMap<String, Integer>",
    "Array(",
    "int[]",
    "Arrays.asList(",
    "add(",
    "put(",
    "a: 1",
    "'k': \"v\"",
    "()",
)
"""Pieces of which literals are made at random."""


def compare_literals(package: Path, number: int = 60_000) -> tuple[int, list[str]]:
    """Compare the readers of Java and JavaScript literals on texts made of pieces. Returns the differences."""
    from bfcl_eval.eval_checker.ast_eval.type_convertor import java_type_converter, js_type_converter

    ours = module_beside(str(BFCL), "literals.py")
    types = module_beside(str(BFCL), "checker.py")
    rng, differences = random.Random(5), []
    starts = (
        "new ArrayList<String>(Arrays.asList(",
        "new int[]{",
        "new HashMap<String, Object>() {{ ",
        "[",
        "[[",
        "{",
        "",
    )
    ends = ("))", "}", "}}", "]", "]]", "")
    sides = (
        (java_type_converter.java_type_converter, ours.java, types.JAVA),
        (js_type_converter.js_type_converter, ours.javascript, types.JAVASCRIPT),
    )
    for _ in range(number):
        theirs, mine, kinds = rng.choice(sides)
        text = rng.choice(starts) + "".join(rng.choices(PIECES, k=rng.randint(0, 7))) + rng.choice(ends)
        kind = rng.choice(list(kinds))
        inner = rng.choice([None, *kinds]) if kind in ("array", "Array", "ArrayList") else None
        results = []
        for read in (theirs, mine):
            try:
                results.append(repr(read(text, kind, inner)))
            except Exception:  # no reading
                results.append("nothing")
        if results[0] != results[1]:
            differences.append(f"{kind} of {inner}: {text!r}: theirs {results[0]}, ours {results[1]}")
    return number, differences


def main() -> None:
    """Print the counts and the differences."""
    package = folder()
    if package is None:
        raise SystemExit("bfcl_eval is not on PYTHONPATH: unpack its wheel and name that folder")
    counts, differences, rejected = compare(package)
    for category in CATEGORIES:
        right, wrong = counts[f"{category} right"], counts[f"{category} wrong"]
        print(f"{category:<24}{right:>8} right {wrong:>8} wrong   first answers rejected by both: {rejected[category]}")
    print(f"{sum(counts.values())} verdicts, {len(differences)} differ")
    print("\n".join(differences[:20]))
    number, differences = compare_literals(package)
    print(f"{number} literals, {len(differences)} read in another way")
    print("\n".join(differences[:20]))


if __name__ == "__main__":
    main()
