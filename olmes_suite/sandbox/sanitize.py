"""The program inside a response, as BigCodeBench cleans it up: what the entry point needs, and nothing else.

Behaviour of the sanitiser of EvalPlus and BigCodeBench, which the reference uses: of all runs of lines that parse the
one with the most lines that are not blank; of that, at the top level, the imports, and the definitions and assignments
that the entry point reaches by name. The first definition of a name counts.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Iterator
from typing import Any

from olmes_suite.errors import MissingData
from olmes_suite.plugins import install


@functools.lru_cache(maxsize=1)
def parser() -> Any:
    """tree-sitter's parser for Python. Raises MissingData without it."""
    try:
        import tree_sitter
        import tree_sitter_python
    except ImportError:
        raise MissingData(f"BigCodeBench cleans programs up with tree-sitter: {install('code')}") from None
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))


def parses(code: str) -> bool:
    """Python's own parser takes it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def longest_code(text: str) -> str:
    """The first of the runs of two or more lines that parse and hold the most lines that are not blank."""
    lines = text.split("\n")
    if len(lines) > 1 and all(line.strip() for line in (lines[0], lines[-1])) and parses(text):
        return text
    before = [0]
    for line in lines:
        before.append(before[-1] + bool(line.strip()))
    pairs = [(before[i] - before[j + 1], i, j) for i in range(len(lines)) for j in range(i + 1, len(lines))]
    for filled, i, j in sorted(pairs):
        if filled < 0 and parses(found := "\n".join(lines[i : j + 1])):
            return found
    return lines[0]


def sanitize(response: str, entry_point: str) -> str:
    """The cleaned program; empty where nothing of use is in the response. Raises MissingData without tree-sitter."""
    code = longest_code(response).encode("utf-8", "replace")
    imports: list[Any] = []
    definitions: dict[str, Any] = {}
    for node in parser().parse(code).root_node.children:
        if node.type in ("import_statement", "import_from_statement"):
            imports.append(node)
        elif (name := _defines(node)) is not None:
            definitions.setdefault(name, node)
    wanted = _reached(entry_point, definitions)
    kept = [*imports, *(node for name, node in definitions.items() if name in wanted)]
    return "\n".join(code[node.start_byte : node.end_byte].decode("utf-8", "replace") for node in kept)


def _defines(node: Any) -> str | None:
    """The name that a statement at the top level defines."""
    if node.type in ("class_definition", "function_definition"):
        return _first_name(node)
    if node.type == "expression_statement" and node.children[0].type == "assignment":
        return _first_name(node.children[0])
    return None


def _first_name(node: Any) -> str | None:
    return next((child.text.decode("utf-8", "replace") for child in node.children if child.type == "identifier"), None)


def _within(node: Any) -> Iterator[Any]:
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        stack.extend(found.children)


def _reached(start: str, definitions: dict[str, Any]) -> set[str]:
    """Names reachable from `start` by the identifiers in the definitions."""
    uses = {
        name: {inner.text.decode("utf-8", "replace") for inner in _within(node) if inner.type == "identifier"}
        for name, node in definitions.items()
    }
    reached, queue = {start}, [start]
    while queue:
        for name in uses.get(queue.pop(), set()) - reached:
            reached.add(name)
            queue.append(name)
    return reached
