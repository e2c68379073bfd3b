"""Run the cells of a notebook without a kernel, and store what they print.

    python tests/support/notebook.py examples/analysis.ipynb

writes the notebook again with its outputs. The cells hold plain Python, and the last expression of a cell is shown.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def execute(cells: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Run the code cells in one namespace in the working folder; returns the outputs of each."""
    space: dict[str, Any] = {"__name__": "__main__"}
    return [_run("".join(cell["source"]), space) for cell in cells if cell["cell_type"] == "code"]


def _run(source: str, space: dict[str, Any]) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), space)
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last is not None else None
    outputs = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if shown is not None:
        data = {"text/plain": _lines(repr(shown))}
        if hasattr(shown, "_repr_html_") and (page := shown._repr_html_()):
            data["text/html"] = _lines(page)
        outputs.append({"output_type": "execute_result", "execution_count": None, "data": data, "metadata": {}})
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(file: Path) -> None:
    """Write the notebook again with the outputs of its cells."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    target = file.resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outputs = execute(notebook["cells"])
    for cell, output in zip((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), outputs, strict=True):
        cell["outputs"], cell["execution_count"] = output, None
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(Path(sys.argv[1]))
