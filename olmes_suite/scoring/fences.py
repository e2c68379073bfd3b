"""Code in the fences of a response."""

from __future__ import annotations

import re

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
    """Return the code that a careful reader would run: the last fenced block that mentions `name`, whole.

    Whatever language the fence names is not code, and a last fence need not be closed.
    """
    blocks, start = [], -1
    for fence in _ANY_OPENING.finditer(response.replace("\r\n", "\n")):
        if start < 0:
            start = fence.end() + 1
        elif not fence.group(1):
            blocks.append(response.replace("\r\n", "\n")[start : fence.start()])
            start = -1
    if start >= 0:
        blocks.append(response.replace("\r\n", "\n")[start:])
    named = [block for block in blocks if name in block]
    return (named or blocks or [""])[-1].rstrip().strip("\n")
