"""The pages of `--help`: whole sentences, arguments in capitals with a meaning, defaults in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from doc_commands import below, tree
from helpers import olmes_here
from typer.main import get_command


def commands() -> Iterator[tuple[str, Any]]:
    """Each command and sub-command with its name."""
    from train_plugins.cli import merge_app

    for name, command in tree().items():
        yield name, command
        yield from ((f"{name} {inner}", one) for inner, one in below(command).items())
    yield "train merge", get_command(merge_app)


PAGES = dict(commands())


@pytest.mark.parametrize("name", PAGES)
def test_arguments_are_in_capitals_and_explained(name: str) -> None:
    for one in (one for one in PAGES[name].params if one.param_type_name == "argument"):
        assert one.metavar and re.match(r"[A-Z]", one.metavar), one.name
        assert getattr(one, "help", None), one.name


@pytest.mark.parametrize("name", PAGES)
def test_options_are_sentences_with_their_defaults_in_words(name: str) -> None:
    for one in (one for one in PAGES[name].params if one.param_type_name == "option"):
        text = one.help or ""
        assert text.endswith((".", "…")), f"{one.opts}: {text}"
        assert not re.search(r"leaf task|prefix optional|\[[^\]]*\]\.?$|default: ", text), f"{one.opts}: {text}"


def test_equal_defaults_have_equal_words() -> None:
    """An option that several commands share has one text, where its name means one thing."""
    shared = ("--data-dir", "--data", "--include-path", "--json", "--judge", "--report-to", "--thinking", "--lineage")
    for option in shared:
        texts = {one.help for page in PAGES.values() for one in page.params if option in one.opts}
        assert len(texts) == 1, option


@pytest.mark.parametrize("words", [(), *((name,) for name, page in PAGES.items() if below(page))], ids=str)
def test_lists_of_commands_have_whole_sentences(words: tuple[str, ...], tmp_path: Any) -> None:
    shown = olmes_here(*words, "--help", tmp=tmp_path, COLUMNS="80").stdout
    listed = shown.partition("\nCommands:\n")[2]
    assert listed and "..." not in listed and all(len(line) <= 80 for line in shown.splitlines())
