"""Shared by the commands that ask models: the journal, one completer for each model, and the data card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.wording import count
from olmes_suite.yaml_files import Keys, Place
from train_plugins.data.curation.generation import models
from train_plugins.data.curation.generation.completions import Completer, Journal
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.output import Output


class Session:
    """The models of one command; use it as a context manager.

    Models are asked one after the other, and a checkpoint is freed before the next one is loaded.
    """

    def __init__(self, output: Output, seed: int) -> None:
        self._output = output
        self.journal = Journal(output.state)
        self.seed = seed
        self._completers: dict[str, Completer] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for completer in self._completers.values():
            completer.close()
        self.journal.__exit__()
        self._output.keep = self._output.keep or self.journal.added  # what is paid for outlives an error

    def model(self, model: Model) -> Completer:
        """Return the completer of a model; other checkpoints are freed."""
        key = repr(model)
        if key not in self._completers:
            self._completers[key] = Completer(model, self.journal, self.seed)
        for other, completer in self._completers.items():
            if other != key and not completer.model.served:
                completer.close()
        return self._completers[key]

    def spent(self) -> list[dict[str, Any]]:
        """Return what each model's completions took, for the manifest."""
        return [completer.spent.as_json(completer.model) for completer in self._completers.values()]


def check_models(found: Iterable[tuple[Keys, Model]], place: Place) -> None:
    """Check the models of a recipe by the path of their keys. Raises UsageError."""
    for key, model in found:
        models.check(model, place.inside(*key))


def check_names(found: Sequence[tuple[Keys, Model]], place: Place) -> None:
    """Raise UsageError where two models have one name in the rows."""
    names = [model.called for _, model in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        path = [key for key, model in found if model.called == twice][-1]
        raise UsageError(f"{place.at(*path)}: two models are called {twice!r}; give one of them another `name`")


def described(model: Model) -> str:
    """Describe a model on one line, for plans and cards."""
    where = f" at {model.base_url}" if model.served else f" on {model.engine}"
    return f"{model.called} ({model.model}{where}), temperature {model.temperature:g}, {model.max_tokens} tokens"


def card(title: str, facts: Sequence[str], manifest: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """Return the data card: facts, the counts with the reasons of rejection, and what the models' completions took."""
    counts = manifest["counts"]
    lines = [f"# {title}", "", *(f"* {fact}" for fact in facts), "", "## Rows", "", "| | rows |", "|---|---|"]
    lines += [f"| {name} | {number} |" for name, number in counts.items() if isinstance(number, int)]
    lines += [f"| left out: {reason} | {number} |" for reason, number in counts["rejected"].items()]
    lines += ["", "## Models", "", "| model | completions | failed | prompt tokens | completion tokens | cost (USD) |"]
    lines += ["|---|---|---|---|---|---|"]
    for one in manifest["models"]:
        cost = "–" if one["cost_usd"] is None else f"{one['cost_usd']:.2f}"
        tokens = f"{one['prompt_tokens']} | {one['completion_tokens']}"
        lines.append(f"| {one['name']} | {one['completions']} | {one['failed']} | {tokens} | {cost} |")
    return "\n".join([*lines, *([""] if more else []), *more]) + "\n"


def summary(manifest: Mapping[str, Any]) -> list[str]:
    """Return the lines that a command prints about its result."""
    counts = manifest["counts"]
    read, written = counts["read"], counts["written"]
    lines = [f"{count(written, 'row')} from {read} ({counts['unit']})"]
    lines += [f"  left out: {reason}: {number}" for reason, number in counts["rejected"].items()]
    for one in manifest["models"]:
        cost = "" if one["cost_usd"] is None else f", ${one['cost_usd']:.2f}"
        failed = f", {one['failed']} failed" if one["failed"] else ""
        tokens = f"{one['prompt_tokens']} + {one['completion_tokens']} tokens"
        lines.append(f"{one['name']}: {one['completions']} completions{failed}, {tokens}{cost}")
    return lines
