"""The commands of the documentation: found in fenced blocks, and run in this process in a folder of their own.

`python tests/support/doc_commands.py PAGE …` runs pages from top to bottom and writes the real output into them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from typer.main import get_command

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        ".github/**/*.md",
        "docs/**/*.md",
        "skills/**/*.md",
        "examples/**/*.md",
        "tasks/**/*.md",
        "benchmarks/**/*.md",
    )
    for page in ROOT.glob(pattern)
)
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n\n?)?^ {0,3}```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n"
    r"(?P<body>.*?)^ {0,3}```$",
    re.MULTILINE | re.DOTALL,
)
OPTIONAL = re.compile(r"\[([^\]]*)\]")
VARYING = (
    (re.compile(r"-[0-9a-f]{8}\b"), "-########"),  # the hash in a run's name
    (re.compile(r"\b\d\d-\d\d \d\d:\d\d\b"), "##-## ##:##"),
    (re.compile(r"\b\d+\.\d s\b"), "# s"),
    (re.compile(r"\b\d+(\.\d)? ([kM]B|bytes)\b"), "# B"),
    (re.compile(r"olmes-suite \d+\.\d+\S*"), "olmes-suite #"),
)
"""What changes from one version, machine or day to another."""
PROGRESS = re.compile(r"^(\d+ tasks?, [\d,]+ documents.*|\S+: [\d,]+ of [\d,]+ documents.*)\n", re.MULTILINE)
"""Lines that a terminal shows as a bar, which is gone at the end."""


@dataclass(slots=True)
class Command:
    """A line that a reader types, and what the page says that it prints."""

    line: str
    output: str = ""
    kind: str = "console"
    reason: str = ""
    """Why it cannot be run in a test: the page's comment `<!-- not run: … -->` above the block."""


@dataclass(slots=True)
class Page:
    """A page's commands and files, in order."""

    steps: list[Command | tuple[str, str]] = field(default_factory=list)
    """Commands, and files that the page shows: path and text of a block with a `title`."""

    @property
    def commands(self) -> list[Command]:
        """The commands alone."""
        return [step for step in self.steps if isinstance(step, Command)]


def read(text: str) -> Page:
    """Read the fenced blocks of a page: `console`, `sh`, and those of any kind with a title, which are files."""
    page = Page()
    for block in BLOCK.finditer(text):
        note = block["note"] or ""
        reason = note.removeprefix("not run: ") if note.startswith("not run: ") else ""
        if block["title"]:
            page.steps.append((block["title"], block["body"]))
        elif block["kind"] == "console":
            page.steps += [Command(_line(typed), out, "console", reason) for typed, out in _typed(block["body"])]
        elif block["kind"] in ("sh", "bash"):
            lines = re.sub(r"\s*\\\n\s*", " ", block["body"]).splitlines()
            page.steps += [Command(one, kind="sh", reason=reason) for line in lines if (one := _line(line))]
    return page


def _typed(body: str) -> Iterator[tuple[str, str]]:
    """Yield what is typed after each `$ `, continued lines included, and the output below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n", part)
        assert typed is not None, part
        yield typed[0], part[typed.end() :]


def _line(typed: str) -> str:
    return re.sub(r"(^|\s)#\s.*$", "", re.sub(r"\s*\\\n\s*", " ", typed).strip()).strip()


def words(line: str) -> list[str] | None:
    """Return the arguments of a call of `olmes`, its optional options among them; None for other programs."""
    line = OPTIONAL.sub(_optional, re.sub(r"\s(\||&&|;|>|2>).*$", "", line)).replace("…", "")
    parts = shlex.split(line)
    while parts and re.fullmatch(r"[A-Z_]+=.*", parts[0]):
        parts = parts[1:]
    return parts[1:] if parts and parts[0] == "olmes" else None


def _optional(found: re.Match[str]) -> str:
    """Return what stands in square brackets if it is an option, with its value where it has one."""
    inner = found[1].replace("…", "").strip()
    cut = "…" in found[1] and " " not in inner
    return inner if inner.startswith("--") and not cut else ""


def same(expected: str, got: str) -> bool:
    """Whether the output is the page's, apart from what varies; a line `…` stands for any lines."""
    for pattern, instead in VARYING:
        expected, got = pattern.sub(instead, expected), pattern.sub(instead, got)
    parts = [re.escape(part.strip("\n")) for part in re.split(r"^…\n", expected, flags=re.MULTILINE)]
    flexible = [re.sub(r"(?:\\ )+", r"\\s+", re.sub(r"\\\n", r"\\n", part)) for part in parts]
    return re.fullmatch(r"(?:.*\n)?".join(flexible).rstrip() + r"\s*", got.strip("\n"), re.DOTALL) is not None


@lru_cache(maxsize=1)
def tree() -> dict[str, Any]:
    """Commands by name, loaded."""
    from olmes_suite.cli.main import COMMANDS

    return {name: get_command(importlib.import_module(module).app) for name, (module, _) in COMMANDS.items()}


def below(command: Any) -> dict[str, Any]:
    """The commands of a group, those that are imported when they are called among them."""
    if not hasattr(command, "commands"):
        return {}
    return {name: command.get_command(None, name) for name in command.list_commands(None)}


class Shell:
    """Runs lines as a shell would, as far as pages need one: `olmes` in this process, and a few programs."""

    def __init__(self) -> None:
        self.status = 0
        self.programs: dict[str, Callable[[list[str]], str]] = {
            "cat": lambda args: "".join(Path(one).read_text(encoding="utf-8") for one in args),
            "echo": lambda args: " ".join(args).replace("$?", str(self.status)) + "\n",
            "mkdir": self._mkdir,
            "ls": lambda args: "".join(f"{one.name}\n" for one in sorted(Path(args[0] if args else ".").iterdir())),
        }

    def knows(self, line: str) -> bool:
        """Whether the line's program is one that this shell runs."""
        return words(line) is not None or shlex.split(line)[:1][0] in self.programs

    def run(self, line: str) -> str:
        """Run one line; returns what it prints, standard error included."""
        line, _, target = line.partition(" > ")
        args = words(line)
        if args is None:
            program, *rest = shlex.split(line)
            out = self.programs[program](rest)
        else:
            out = self.olmes(args, split=bool(target))
        if target:
            Path(target.strip()).write_text(out, encoding="utf-8")
            return ""
        return out

    def olmes(self, args: list[str], split: bool = False) -> str:
        """Run the command line; returns what it prints, without standard error where that is split off."""
        from olmes_suite.cli.main import run
        from olmes_suite.tasks import catalog

        shown = io.StringIO()
        with (
            contextlib.redirect_stdout(shown),
            contextlib.redirect_stderr(io.StringIO() if split else shown),
            catalog.including(()),
            mock.patch.object(sys, "argv", ["olmes", *args]),
        ):
            self.status = run(args)
        return re.sub(r"[ \t]+$", "", PROGRESS.sub("", shown.getvalue()), flags=re.MULTILINE)

    @staticmethod
    def _mkdir(args: list[str]) -> str:
        for one in args:
            if not one.startswith("-"):
                Path(one).mkdir(parents=True, exist_ok=True)
        return ""


def write_file(name: str, text: str) -> None:
    """Write a file that a page shows, below the working folder."""
    path = Path(name)
    assert not path.is_absolute() and ".." not in path.parts, name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def written_again(text: str) -> str:
    """Run a page in the working folder; returns it with the real output below each command of its console blocks."""
    shell = Shell()

    def block(found: re.Match[str]) -> str:
        body = found["body"]
        if found["title"]:
            write_file(found["title"], body)
        elif (found["note"] or "").startswith("not run: ") or found["kind"] not in ("console", "sh"):
            return found[0]
        elif found["kind"] == "sh":
            for command in read(found[0]).commands:
                shell.run(command.line)
        else:
            typed = [(line, old, shell.run(_line(line))) for line, old in _typed(body)]
            body = "".join(f"$ {line}{old if same(old, new) else new}" for line, old, new in typed)
        return found[0].replace(found["body"], body)

    return BLOCK.sub(block, text)


def main() -> None:
    """Command line."""
    os.environ.setdefault("OLMES_CACHE", tempfile.mkdtemp())
    sys.path.insert(0, str(ROOT))
    for name in sys.argv[1:]:
        path, folder = Path(name).resolve(), tempfile.mkdtemp()
        with contextlib.chdir(folder):
            text = written_again(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        shutil.rmtree(folder)
        print(json.dumps({"written": name}))


if __name__ == "__main__":
    main()
