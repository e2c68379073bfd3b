"""Recorded runs: the run store, readers of scores and responses, baseline files, imported scores.

`olmes_suite.runs` is both this package and a function of the Python interface: importing one of its modules puts the
package into the namespace of `olmes_suite`, so the package is callable (`olmes_suite.runs("runs")`).
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called like `olmes_suite.api.runs`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from importlib import import_module  # by name, because imports of modules run down the layers

        return import_module("olmes_suite.api").runs(*args, **options)


sys.modules[__name__].__class__ = _Callable
