"""The trackers by name, and the checks that are made before long work starts."""

from __future__ import annotations

from collections.abc import Sequence

from olmes_suite.errors import OlmesError, UsageError, first_line
from olmes_suite.extras import require
from olmes_suite.plugins import Plugins
from olmes_suite.trackers.base import Tracker

BUILT_IN = {
    "wandb": "olmes_suite.trackers.wandb:Wandb",
    "mlflow": "olmes_suite.trackers.mlflow:Mlflow",
    "trackio": "olmes_suite.trackers.trackio:Trackio",
    "tensorboard": "olmes_suite.trackers.tensorboard:Tensorboard",
}
TRACKERS = Plugins("tracker", "olmes.trackers", BUILT_IN)


def chosen(values: str | Sequence[str] | None, option: str = "--report-to") -> tuple[str, ...]:
    """Return the names in `values`, each text of which may hold several with commas, after checking each tracker.

    Raises UsageError for an unknown name, a missing client and settings with which nothing could be reported.
    """
    texts = [values] if isinstance(values, str) else list(values or ())
    names = dict.fromkeys(name.strip() for text in texts for name in text.split(","))
    if "" in names:
        raise UsageError(f"{option}: a name is empty; known: {', '.join(TRACKERS.names())}")
    for name in names:
        check(name, option)
    return tuple(names)


def check(name: str, option: str) -> None:
    """Raise UsageError for a tracker that cannot be used; `option` is what named it."""
    if name not in TRACKERS:
        raise UsageError(f"{option}: {TRACKERS.unknown(name)}")
    if name in BUILT_IN:
        require(name, f"{option} {name}")
    try:
        kind(name).check()
    except OlmesError as error:
        raise UsageError(f"{option} {name}: {error}") from None
    except Exception as error:  # a client that is installed but cannot be imported, or refuses its settings
        raise UsageError(f"{option} {name}: {type(error).__name__}: {first_line(error)}") from None


def kind(name: str) -> type[Tracker]:
    """Import and return the class of a tracker. Raises UsageError for an unknown name."""
    found: type[Tracker] = TRACKERS.load(name)
    return found
