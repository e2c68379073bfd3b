"""Extraction of the program in a response, as BigCodeBench does it: only the parts that the entry point needs.

Reproduces the sanitiser of EvalPlus and BigCodeBench, which the reference uses. Of all runs of lines that parse it
takes the run with the most non-blank lines, and keeps the imports at its top level and the definitions and assignments
that the entry point reaches by name. The first definition of a name counts.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

from olmes_suite.errors import MissingData
from olmes_suite.extras import install


class Node(Protocol):
    """A node of tree-sitter's syntax tree."""

    type: str
    text: bytes
    start_byte: int
    end_byte: int
    children: list[Node]


@functools.lru_cache(maxsize=1)
def parser() -> Any:
    """Return tree-sitter's parser for Python. Raises MissingData without tree-sitter."""
    try:
        import tree_sitter
        import tree_sitter_python
    except ImportError:
        raise MissingData(f"BigCodeBench needs tree-sitter: {install('code')}") from None
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))


def parses(code: str) -> bool:
    """Return whether Python's own parser accepts the code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def longest_code(text: str) -> str:
    """Return the run of two or more lines that parses and has the most non-blank lines, the first of several.

    Without such a run, the first line.
    """
    lines = text.split("\n")
    if len(lines) > 1 and all(line.strip() for line in (lines[0], lines[-1])) and parses(text):
        return text
    filled_before = [0]
    for line in lines:
        filled_before.append(filled_before[-1] + bool(line.strip()))
    runs = [
        (filled_before[i] - filled_before[j + 1], i, j) for i in range(len(lines)) for j in range(i + 1, len(lines))
    ]
    for negated_count, i, j in sorted(runs):
        if negated_count < 0 and parses(code := "\n".join(lines[i : j + 1])):
            return code
    return lines[0]


def sanitize(response: str, entry_point: str) -> str:
    """Return the program in the response, or "" without one. Raises MissingData without tree-sitter."""
    code = longest_code(response).encode("utf-8", "replace")
    imports: list[Node] = []
    definitions: dict[str, Node] = {}
    for node in parser().parse(code).root_node.children:
        if node.type in ("import_statement", "import_from_statement"):
            imports.append(node)
        elif (name := _defined_name(node)) is not None:
            definitions.setdefault(name, node)
    reached = _reached(entry_point, definitions)
    nodes = [*imports, *(node for name, node in definitions.items() if name in reached)]
    return "\n".join(code[node.start_byte : node.end_byte].decode("utf-8", "replace") for node in nodes)


def _defined_name(node: Node) -> str | None:
    """Return the name that a top-level statement defines."""
    if node.type in ("class_definition", "function_definition"):
        return _first_name(node)
    if node.type == "expression_statement" and node.children[0].type == "assignment":
        return _first_name(node.children[0])
    return None


def _first_name(node: Node) -> str | None:
    return next((child.text.decode("utf-8", "replace") for child in node.children if child.type == "identifier"), None)


def _descendants(node: Node) -> Iterator[Node]:
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(current.children)


def _reached(start: str, definitions: dict[str, Node]) -> set[str]:
    """Return the names reachable from `start` by the identifiers in the definitions."""
    uses = {
        name: {inner.text.decode("utf-8", "replace") for inner in _descendants(node) if inner.type == "identifier"}
        for name, node in definitions.items()
    }
    reached, queue = {start}, [start]
    while queue:
        for name in uses.get(queue.pop(), set()) - reached:
            reached.add(name)
            queue.append(name)
    return reached
