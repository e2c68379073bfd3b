"""The program inside a response, as BigCodeBench cleans it up: what the entry point needs, and nothing else.

Behaviour of the sanitiser of EvalPlus and BigCodeBench, which the reference uses: of all runs of lines that parse the
one with the most lines that are not blank; of that, at the top level, the imports, and the definitions and assignments
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
from typing import Any

from olmes_suite.errors import MissingData

_NEUTRAL = " \t\f\r"
"""White space that Python ignores on a line of its own; other blank characters are errors to it."""
_FLAGS = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT
_EFFORT = 4_000_000


@functools.lru_cache(maxsize=1)
def parser() -> Any:
    """tree-sitter's parser for Python. Raises MissingData without it."""
    try:
        import tree_sitter
        import tree_sitter_python
    except ImportError:
        raise MissingData("BigCodeBench cleans programs up with tree-sitter: pip install 'olmes-suite[code]'") from None
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
    """The first of the runs of two or more lines that parse and hold the most lines that are not blank.

    A run is ruled out by a beginning of it that no further line can mend, so that prose costs a glance for each line.
    Beyond `_EFFORT` characters handed to Python's parser the search ends with the best run so far.
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
