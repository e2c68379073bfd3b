"""The tool `python`: programs that the model writes, run in the sandbox of `olmes eval`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from olmes_suite.scoring.tools import ToolOptions, Tools
from train_plugins.rl.tools import shortened

if TYPE_CHECKING:
    from olmes_suite.sandbox.grade import Sandbox

SECONDS = 5.0
"""Time limit of a program in processor seconds."""
SHOWN = 4000
"""The largest number of characters of output that the model gets."""
ERROR_MARK = "\x1eerror "
"""What stands before the program's exception in its output, to tell it from what the program printed."""
_RUNNER = f"""\
import sys as _sys
try:
    exec(compile({{program!r}}, "program.py", "exec"), {{{{"__name__": "__main__"}}}})
except SystemExit as _end:
    raise
except BaseException as _error:
    import traceback as _traceback
    _frames = [_f for _f in _traceback.extract_tb(_error.__traceback__) if _f.filename == "program.py"]
    _line = _frames[-1].lineno if _frames else getattr(_error, "lineno", None)
    _where = f"line {{{{_line}}}}: " if _line else ""
    print({ERROR_MARK!r} + _where + _traceback.format_exception_only(_error)[-1].strip(), flush=True)
    _sys.exit(1)
"""


class ProgramFailed(Exception):
    """A program ended with an error. The text is for the model: what was printed, then the error."""


def python(code: str) -> str:
    """
    Run a Python program and return what it printed. Each call starts a new interpreter, without network or files.

    Args:
        code: The whole program. Print the results; nothing else is returned.
    """
    ran = _sandbox().run(_RUNNER.format(program=code), timeout=SECONDS)
    printed, _, raised = ran.stdout.partition(ERROR_MARK)
    printed = shortened(printed, SHOWN)
    if ran.verdict.outcome == "error":
        raise RuntimeError(f"the sandbox failed: {ran.verdict.detail}")
    if ran.verdict.passed:
        return printed or "(no output)"
    why = raised.strip() or (
        f"stopped after {SECONDS:g} s" if ran.verdict.outcome == "timeout" else f"ended with {ran.verdict.detail}"
    )
    raise ProgramFailed(f"{printed.rstrip()}\n{shortened(why, SHOWN)}".strip())


def prepare() -> None:
    """Start the sandbox. Raises MissingData on a machine without one."""
    _sandbox()


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    sandbox: Sandbox = Tools(ToolOptions()).get("sandbox")
    return sandbox
