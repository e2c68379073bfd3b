"""Objects that a recipe names by their import path, `module:name`."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line, nearest


def load(path: str, key: str, folder: Path | None = None) -> Any:
    """Import the object at `module:name` (or `module.name`), named under the recipe's `key`.

    Modules are looked for among the installed ones, then in the working directory and in `folder`, the recipe's.
    Raises UsageError.
    """
    module_name, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise UsageError(f"{key}: {path!r} is not an import path; write module:name, such as my_tools:search")
    _look_also_in([Path.cwd(), *([folder.resolve()] if folder else [])])
    found: Any = _module(module_name, f"{key}: {path}")
    for part in name.split("."):
        if not hasattr(found, part):
            known = [one for one in dir(found) if not one.startswith("_")]
            raise UsageError(f"{key}: {path}: {module_name} has no {part!r}{nearest(part, known)}")
        found = getattr(found, part)
    return found


def _look_also_in(folders: list[Path]) -> None:
    """Add folders at the end of the path, where their modules hide no installed ones."""
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _module(name: str, where: str) -> Any:
    """Import a module. Raises UsageError."""
    try:
        return importlib.import_module(name)
    except OlmesError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            importlib.invalidate_caches()
            PathFinder.invalidate_caches()
            raise UsageError(
                f"{where}: there is no module {error.name!r} among the installed ones, in the working directory or "
                "beside the recipe"
            ) from None
        raise UsageError(f"{where}: {name} cannot be imported: {first_line(error)}") from None
    except (Exception, SystemExit) as error:  # a user's module can raise anything
        raise UsageError(f"{where}: {name} cannot be imported: {type(error).__name__}: {first_line(error)}") from None
