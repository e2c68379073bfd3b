"""What checkpoints are held against under `eval.until_decided`: the parent on all documents, or a recorded run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.files import write_text
from train_plugins.config.recipe import Recipe

RULES = "gate-rules.yaml"
"""File in the stage's output with the rules of a gate that stand in the recipe itself."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """The baseline of the gate between chunks of documents, and the gate's rules."""

    model: str | None
    """The parent, which is evaluated on all documents first; None if `run` is given."""
    run: str | None
    """A recorded run."""
    rules: str | Mapping[str, Any] | None
    """A gate.yaml, or its content; None: the default rules."""
    output: Path

    @property
    def described(self) -> str:
        """What determines when a run stops; only averages of equal descriptions are compared."""
        rules = "" if self.rules is None else f" gate={json.dumps(self.rules, sort_keys=True)}"
        return f"until_decided={self.run or 'parent'}{rules}"

    def options(self, baseline: str) -> list[str]:
        """Return the options of `olmes eval`; writes rules that stand in the recipe to the output folder."""
        rules = self.rules
        if rules is not None and not isinstance(rules, str):
            import yaml

            write_text(self.output / RULES, yaml.safe_dump(dict(rules), sort_keys=False, allow_unicode=True))
            rules = str(self.output / RULES)
        return ["--until-decided", "--baseline", baseline, *(["--config", rules] if rules is not None else [])]


def rivals(recipe: Recipe, output: Path) -> Rivals | None:
    """Return what a stage's checkpoints are held against; None without `eval.until_decided`."""
    settings = recipe.eval.until_decided if recipe.eval is not None else None
    if settings is None:
        return None
    parent = settings.baseline == "parent"
    return Rivals(recipe.model if parent else None, None if parent else settings.baseline, recipe.gate, output)
