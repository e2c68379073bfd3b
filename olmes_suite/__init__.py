"""olmes-suite: the evaluation-first toolkit for post-training language models.

The functions of `olmes_suite.api` are names of this package: `import olmes_suite as olmes; olmes.load("runs/NAME")`.
They are imported when they are used.
"""

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "compare", "dry_run", "evaluate", "gate", "load", "prompts", "runs", "score"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from olmes_suite.api import Run, compare, dry_run, evaluate, gate, load, prompts, runs, score


def __getattr__(name: str) -> object:
    """Import a name of the Python interface."""
    from importlib import import_module

    if name == "runs":  # the folder of that name, which can be called: see there
        return import_module("olmes_suite.runs")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("olmes_suite.api"), name)


def __dir__() -> list[str]:
    """All names, those that are not imported yet among them."""
    return sorted({*globals(), *__all__})
