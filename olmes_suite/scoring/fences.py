"""Code in the fences of a response."""

from __future__ import annotations

import ast
import re
import textwrap

FENCE = "```"
_OPENING = re.compile(r"```(?:python\n)?\n*")
_ANNOUNCED = re.compile(r"Here is the completed function:\n*```(?:python\n)?\n*")
_ANY_OPENING = re.compile(r"(?m)^[ \t]*(?:```|~~~)[ \t]*([\w+.-]*)[^\n`]*$")


def last_block(opening: re.Pattern[str], text: str) -> str | None:
    r"""Return the last match of `opening(.*?)\s*` and a fence, where `.` matches line breaks, in linear time."""
    position, block = 0, None
    while begun := opening.search(text, position):
        end = text.find(FENCE, begun.end())
        if end < 0:
            break
        block, position = text[begun.end() : end].rstrip(), end + len(FENCE)
    return block


def completed_function(response: str) -> str:
    """Return the code that the reference reads: the last announced block, otherwise the last one; "" without code.

    Source: the code patterns of allenai/olmes `codex_humanevalplus` and `mbppplus` with `::olmo3:adapt`.
    """
    return last_block(_ANNOUNCED, response) or last_block(_OPENING, response) or ""


def between_last_fences(response: str) -> str:
    """Return the lines between the last two lines that hold a fence; "" with fewer than two (LiveCodeBench)."""
    lines = response.split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def careful_code(response: str, name: str = "") -> str:
    """Return the code that a careful reader would run: the last fenced block that defines `name`, or that is a program.

    Whatever language the fence names is not code, and a last fence need not be closed. Blocks that hold output or a
    short use of the code are passed over.
    """
    text = response.replace("\r\n", "\n")
    blocks, start = [], -1
    for fence in _ANY_OPENING.finditer(text):
        if start < 0:
            start = fence.end() + 1
        elif not fence.group(1):
            blocks.append(text[start : fence.start()])
            start = -1
    if start >= 0:
        blocks.append(text[start:])
    defines = re.compile(rf"\b(?:def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", re.M)
    wanted = [block for block in blocks if name and defines.search(block)]
    programs = [block for block in blocks if _is_program(block)]
    return (wanted or programs or blocks or [""])[-1].rstrip().strip("\n")


def _is_program(block: str) -> bool:
    """Whether the block is Python with a statement beside bare values."""
    try:
        body = ast.parse(textwrap.dedent(block)).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await) for node in body)
