"""The documentation: relative links and anchors exist, and so does every `olmes …` command and option that it names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from doc_commands import PAGES, ROOT, below, tree

from olmes_suite.cli.main import COMMANDS

FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n(.*?)^ {0,3}\1[^\n]*$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*\n?)+", re.MULTILINE)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)|^ {0,3}\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
COMMAND = re.compile(r"(?:^|(?<=[\s(;&|$'\"=/]))olmes[ \t]+([^\n]*)")
END = {"|", "||", "&&", ";", ">", ">>", "<", "#", "·"}
STAGES = {
    "run",
    "merge",
    *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["olmes.stages"],
}
WORD = re.compile(r"[a-z][a-z0-9-]*")


def prose(text: str) -> str:
    """The text without code, where brackets mean nothing."""
    return SPAN.sub("", INDENTED.sub("\n", FENCE.sub("", COMMENT.sub("", text))))


def code(text: str) -> Iterator[str]:
    """Fenced blocks, indented blocks and code spans, continued lines joined."""
    rest = COMMENT.sub("", text)
    for fence in FENCE.finditer(rest):
        yield re.sub(r"\\\n\s*", " ", fence[2])
    rest = FENCE.sub("", rest)
    for block in INDENTED.finditer(rest):
        yield re.sub(r"\\\n\s*", " ", block[0])
    for span in SPAN.finditer(INDENTED.sub("\n", rest)):
        yield " ".join(span[2].split())


def links(text: str) -> Iterator[str]:
    """Targets of links that are not addresses."""
    for found in LINK.finditer(prose(text)):
        target = found[1] or found[2]
        if not re.match(r"[a-z][a-z0-9+.-]*:|//", target):
            yield unquote(target)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    found: dict[str, int] = {}
    for heading in HEADING.finditer(INDENTED.sub("\n", FENCE.sub("", text))):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    out = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            out.append(target)
        elif anchor and there.suffix == ".md":
            there_text = text if there == page else there.read_text(encoding="utf-8")
            if anchor not in anchors(there_text):
                out.append(target)
    return out


def calls(text: str) -> Iterator[list[str]]:
    """The words of every call of `olmes` in the code of a text; `sft|dpo` gives a call for each."""
    for block in code(text):
        for found in COMMAND.finditer(block):
            words: list[str] = []
            for word in found[1].split():
                if word in END:
                    break
                words.append(word.strip("[](){},;`'\".…:"))
            yield from expanded([word for word in words if word])


def expanded(words: list[str]) -> list[list[str]]:
    """A call for each combination of alternatives among the first two words."""
    out: list[list[str]] = [[]]
    for position, word in enumerate(words):
        alternatives = word.split("|") if position < 2 and re.fullmatch(r"[a-z0-9-]+(\|[a-z0-9-]+)+", word) else [word]
        out = [[*call, alternative] for call in out for alternative in alternatives]
    return out


def unknown(words: list[str]) -> str | None:
    """The first word of a call that is no command, sub-command or option; None where all exist."""
    if not words or words[0].startswith("-") or not WORD.fullmatch(words[0]):
        return None
    if words[0] not in tree():
        return words[0]
    command, rest = tree()[words[0]], words[1:]
    options = set(flags(command))
    if words[0] == "train" and rest and WORD.fullmatch(rest[0]) and rest[0] not in STAGES:
        return f"train {rest[0]}"
    if words[0] == "train" and rest[:1] == ["merge"]:  # it has options of its own
        from typer.main import get_command

        from train_plugins.cli import merge_app

        options = set(flags(get_command(merge_app)))
    if subcommands := below(command):
        if rest and WORD.fullmatch(rest[0]):
            if rest[0] not in subcommands:
                return f"{words[0]} {rest[0]}"
            options = set(flags(subcommands[rest[0]]))
        else:
            options |= {flag for sub in subcommands.values() for flag in flags(sub)}
    for word in rest:
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", word.partition("=")[0]):
            if flag not in options:
                return f"{' '.join(words[:2])} {flag}"
    return None


def flags(command: Any) -> Iterator[str]:
    """The options of a command."""
    yield from ("--help", "--version")
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_exist(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_installation_has_a_row_for_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/installation.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(extras) - {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set()


def test_figures_show_without_a_script() -> None:
    """GitHub draws mermaid; the built site, which loads nothing from another server, would show its source."""
    assert [page.name for page in PAGES if "```mermaid" in page.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    found = [unknown(call) for call in calls(page.read_text(encoding="utf-8"))]
    assert [word for word in found if word is not None] == []


def test_the_readme_names_every_command() -> None:
    named = {call[0] for call in calls((ROOT / "README.md").read_text(encoding="utf-8")) if call}
    assert set(COMMANDS) - named == set()


PAGE = """# One heading

[a](README.md) [b](no.md) [c](#one-heading) [d](#another) `[e](code.md)` [f](https://example.org/x)

    [g](indented.md)

[h]: gone.md
![i](<pictures/no.png> "title")
"""


def test_broken_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / "PAGE.md").write_text(PAGE, encoding="utf-8")
    assert broken(tmp_path / "PAGE.md", PAGE) == ["no.md", "#another", "gone.md", "pictures/no.png"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`olmes eval --model M --suite dev`", None),
        ("`olmes evaluate`", "evaluate"),
        ("`olmes train sft|dpo RECIPE.yaml`", None),
        ("`olmes train sft|grpo RECIPE.yaml`", "train grpo"),
        ("`olmes decontam scan|clean --train F`", None),
        ("`olmes decontam scan|clear --train F`", "decontam clear"),
        ("`olmes tasks show bbh`", None),
        ("`olmes tasks shwo bbh`", "tasks shwo"),
        ("`olmes tasks --no-such`", "tasks --no-such --no-such"),
        ("    olmes gate --baseline A \\\n        --candiate B", "gate --baseline --candiate"),
        ("```\n$ olmes power --no-such 1 | cat\n```", "power --no-such --no-such"),
        ("`olmes eval --model M | grep --no-such`", None),
        ("olmes evaluate is only prose", None),
        ("`import olmes_suite as olmes`", None),
        ("`olmes.commands`", None),
    ],
)
def test_unknown_commands_are_seen(text: str, wrong: str | None) -> None:
    found = [unknown(call) for call in calls(text)]
    assert next((word for word in found if word is not None), None) == wrong


@pytest.mark.parametrize("file", sorted((ROOT / "skills").glob("*/SKILL.md")), ids=lambda file: file.parent.name)
def test_skills_begin_with_their_name_and_use(file: Path) -> None:
    """As the Agent Skills format wants it: a name that is the folder's, and a description of at most 1,024 letters."""
    import yaml

    head = yaml.safe_load(file.read_text(encoding="utf-8").split("---\n")[1])
    assert head["name"] == file.parent.name
    assert 100 < len(head["description"]) <= 1024
