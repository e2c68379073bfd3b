"""Extraction of the program in a response, as BigCodeBench does it: only the parts that the entry point needs.

Reproduces the sanitiser of EvalPlus and BigCodeBench, which the reference uses. Of all runs of lines that parse it
takes the run with the most non-blank lines, and keeps the imports at its top level and the definitions and assignments
that the entry point reaches by name. The first definition of a name counts.
"""

from __future__ import annotations

import ast
import bisect
import codeop
import functools
import itertools
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


_NEUTRAL = " \t\f\r"
"""White space that Python ignores on a line of its own; other blank characters are errors to it."""
_FLAGS = ast.PyCF_ONLY_AST | getattr(codeop, "PyCF_ALLOW_INCOMPLETE_INPUT", 0x4000)
_EFFORT = 4_000_000
"""Characters that Python's parser is given for one response."""


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

    Without such a run, the first line. The search ends with the best run so far once Python's parser was given
    `_EFFORT` characters, so that a response of 100,000 characters takes seconds and not days.
    """
    lines = text.split("\n")
    if len(lines) > 1 and all(line.strip() for line in (lines[0], lines[-1])) and parses(text):
        return text
    search = _Search(lines)
    search.run()
    return "\n".join(lines[slice(*search.best)])


class _Search:
    """The search of `longest_code`. Blank lines around a run change nothing, so runs begin and end with others."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.best = (0, 1)
        self.most = 0
        """Lines of the best run that are not blank."""
        self.effort = _EFFORT
        self.edges = [
            place for place, line in enumerate(lines)
            if line.strip(_NEUTRAL) or any(one.endswith("\\") for one in lines[max(place - 2, 0) : place])
        ]  # fmt: skip
        self.before = [0, *itertools.accumulate(bool(lines[place].strip()) for place in self.edges)]
        """Lines that are not blank before each edge."""

    def run(self) -> None:
        count = len(self.edges)
        for first in range(count):
            if self.before[count] - self.before[first] <= self.most or self.effort < 0:
                return
            shortest = bisect.bisect_right(self.before, self.before[first] + self.most, first + 1) - 1
            if not self._hopeless(first, shortest):
                self._from(first, shortest)

    def _from(self, first: int, shortest: int) -> None:
        """Take the longest run that begins at this edge, if it is longer than the best one."""
        step, last = 1, shortest
        while last < len(self.edges) - 1 and not self._hopeless(first, min(last + step, len(self.edges) - 1)):
            last, step = min(last + step, len(self.edges) - 1), step * 2
        low, high = last, min(last + step, len(self.edges))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._hopeless(first, middle) else (middle, high)
        for end in range(low, shortest - 1, -1):
            start, stop = self._bounds(first, end)
            if stop - start > 1 and self._tried(start, stop) and parses("\n".join(self.lines[start:stop])):
                while end > first and self.before[end + 1] == self.before[end]:  # no longer than it must be
                    begun, ended = self._bounds(first, end - 1)
                    if ended - begun < 2 or not parses("\n".join(self.lines[begun:ended])):
                        break
                    end, start, stop = end - 1, begun, ended
                self.best, self.most = (start, stop), self.before[end + 1] - self.before[first]
                return
            if self.effort < 0:
                return

    def _bounds(self, first: int, end: int) -> tuple[int, int]:
        """The lines of a run between two edges, with the blank ones before it, and one behind it if it is one line."""
        start = self.edges[first - 1] + 1 if first else 0
        stop = self.edges[end] + 1
        behind = self.edges[end + 1] if end + 1 < len(self.edges) else len(self.lines)
        return start, stop + 1 if stop - start == 1 and stop < behind else stop

    def _hopeless(self, first: int, end: int) -> bool:
        """Whether Python's parser gives up on these lines before their end: no lines behind them can mend that."""
        start, stop = self.edges[first], self.edges[end] + 1
        if not self._tried(start, stop) or self.lines[stop - 1].endswith("\\"):
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile("\n".join(self.lines[start:stop]) + "\n", "<text>", "exec", _FLAGS, dont_inherit=True)
        except SyntaxError as error:
            return "incomplete input" not in str(error)
        except (ValueError, MemoryError, RecursionError):
            return True
        return False

    def _tried(self, start: int, stop: int) -> bool:
        """Whether there is effort left to parse these lines."""
        self.effort -= sum(map(len, self.lines[start:stop])) + stop - start
        return self.effort >= 0


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
