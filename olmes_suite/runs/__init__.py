"""Recorded runs: the store, reading scores and responses, baseline files, imported scores.

`olmes_suite.runs` is this folder and a function of the Python interface: importing a module of the folder puts the
folder into the package's namespace, so the folder can be called (`olmes_suite.runs("runs")`).
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A folder of modules that is called as `olmes_suite.api.runs`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from importlib import import_module  # by name: the imports of the layers run down

        return import_module("olmes_suite.api").runs(*args, **options)


sys.modules[__name__].__class__ = _Callable
