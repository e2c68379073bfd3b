"""Construction of the models that score: a served model, a local checkpoint or an installed plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from olmes_suite.errors import MissingData, ModelError, UsageError
from olmes_suite.judges.base import Judge
from olmes_suite.plugins import Plugins
from olmes_suite.scoring.tools import ToolOptions

JUDGES = Plugins("judge", "olmes.judges")
"""Judge plugins: functions of (rest of the name, ToolOptions) that return a Judge, chosen with `--judge NAME:rest`."""
ENCODER = "roberta-large"
"""The encoder of BERTScore for English and of HREF."""


def judge(options: ToolOptions) -> Judge:
    """Build the judge. Raises MissingData if the options do not name one, or if it is unavailable."""
    return _model("judge", options.judge, options.judge_base_url, options)


def classifier(options: ToolOptions) -> Judge:
    """Build the classifier. Raises MissingData if the options do not name one, or if it is unavailable."""
    return _model("classifier", options.classifier, options.classifier_base_url, options)


def encoder(options: ToolOptions) -> Any:
    """Build the encoder, by default `roberta-large`. Raises MissingData if it is unavailable."""
    from olmes_suite.judges.encoder import TextEncoder

    return _or_missing("encoder", lambda: TextEncoder(options.encoder or ENCODER, options.engine.get("device")))


def _model(need: str, name: str | None, base_url: str | None, options: ToolOptions) -> Judge:
    if not name:
        raise MissingData(
            f"needs a {need}: give --{need} MODEL (a checkpoint), or --{need} NAME --{need}-base-url URL (a server)"
        )
    plugin, _, rest = name.partition(":")
    if base_url is None and rest and plugin in JUDGES:
        build: Callable[[str, ToolOptions], Judge] = _or_missing(need, lambda: JUDGES.load(plugin))
        return build(rest, options)
    if base_url is not None:
        from olmes_suite.judges.server import ServerJudge

        return ServerJudge(name, base_url)
    from olmes_suite.judges.local import LocalJudge

    return _or_missing(need, lambda: LocalJudge(name, options))


def _or_missing(need: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (ModelError, UsageError) as error:
        raise MissingData(f"--{need}: {error}") from error
