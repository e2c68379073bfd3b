"""The tools and environments of a recipe, loaded and checked; the same functions for checks, data and trainer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train_plugins.rl import environments, tools
from train_plugins.rl.environments import Factory
from train_plugins.rl.tools import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from train_plugins.config.recipe import Recipe
    from train_plugins.rl.keys import RlvrKeys


@dataclass(frozen=True)
class Loaded:
    """The tools and the environment that a recipe's rollouts may call."""

    tools: list[Tool] = field(default_factory=list)
    environments: dict[str | None, Factory] = field(default_factory=dict)
    """Factories by the name in the rows; None: for all rows."""


def load(recipe: Recipe) -> Loaded:
    """Import the recipe's tools and environments. Raises UsageError, MissingData."""
    keys: RlvrKeys = recipe.own
    if not keys.calls_tools:
        return Loaded()
    folder = _folder(recipe)
    return Loaded(tools.load(keys.tools, folder), environments.load(keys.environment, folder))


def _folder(recipe: Recipe) -> Path | None:
    """Return the folder of the recipe's file."""
    file = Path(recipe.place.name)
    return file.parent if file.is_file() else None


def environment_names(keys: RlvrKeys) -> Collection[str] | None:
    """Return the names that rows may give as their environment; None where they need not name one."""
    return frozenset(keys.environment) if isinstance(keys.environment, Mapping) else None


def schemas(recipe: Recipe) -> dict[str | None, list[dict[str, Any]]]:
    """Return the descriptions of the tools that a prompt shows, by the row's environment."""
    loaded = load(recipe)
    own = [tools.schema(tool) for tool in loaded.tools]
    if not loaded.environments:
        return {None: own}
    return {
        name: own + [tools.schema(method) for method in environments.methods(factory())]
        for name, factory in loaded.environments.items()
    }


def prepare(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> None:
    """Make the tokenizer read calls. Raises UsageError for a chat template that does not render them."""
    if not recipe.own.calls_tools:
        return
    shown = [one for of_one in schemas(recipe).values() for one in of_one]
    if shown:
        from train_plugins.rl import tool_template

        tool_template.prepare(tokenizer, shown, arguments.get("chat_template_kwargs"))
