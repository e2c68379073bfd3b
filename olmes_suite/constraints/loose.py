"""The loose reading of an instruction, which ignores a response's first line, last line and asterisks."""

from __future__ import annotations


def loose_variants(response: str) -> list[str]:
    """Return the response without its first line, last line, both or neither, each with and without asterisks.

    Source: IFEval (arXiv 2311.07911) §2.2; the reference's `utils.py`.
    """
    lines = response.split("\n")
    cuts = [response, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return [*cuts, *(cut.replace("*", "") for cut in cuts)]
