"""Plugins by name: our own from a table, then those that other packages install as entry points.

Looking up a name imports nothing; `load` imports the plugin's module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line, nearest


def install(extra: str) -> str:
    """Return the command that installs an optional part of this package."""
    return f"pip install 'olmes-suite[{extra}]'"


def require(module: str, extra: str, what: str) -> None:
    """Raise UsageError where an optional package is missing: `what` (`--ray needs Ray`), and how to install it."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"{what}: {install(extra)}")


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins of one kind."""

    kind: str
    """What errors call them: `backend`, `stage`."""
    group: str
    """The group of entry points by which other packages add to them."""
    built_in: Mapping[str, str] = field(default_factory=dict)
    """Name to `module:attribute`. They come first: another package cannot replace them."""
    reserved: tuple[str, ...] = ()
    """Further names that the caller resolves itself, such as `auto`."""

    def names(self) -> list[str]:
        """Return every known name, our own first."""
        own = [*self.reserved, *self.built_in]
        return [*own, *sorted(name for name in self._installed() if name not in own)]

    def __contains__(self, name: str) -> bool:
        return name in self.built_in or name in self._installed()

    def check(self, name: str) -> None:
        """Raise UsageError for an unknown name."""
        if name not in self:
            raise self.unknown(name)

    def load(self, name: str) -> Any:
        """Import a plugin. Raises UsageError for an unknown name and for another package's plugin that is broken."""
        self.check(name)
        if name in self.built_in:
            from importlib.metadata import EntryPoint

            return EntryPoint(name, self.built_in[name], self.group).load()
        point = self._installed()[name]
        try:
            return point.load()
        except OlmesError:
            raise
        except Exception as error:  # another package's module: whatever it raises is its owner's to mend
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"{self.kind} {name!r} ({point.value}) cannot be imported: {reason}") from None

    def unknown(self, name: str) -> UsageError:
        """Return the error for an unknown name: the nearest one, and all of them."""
        known = self.names()
        return UsageError(f"unknown {self.kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}")

    def _installed(self) -> Mapping[str, Any]:
        from importlib.metadata import entry_points

        return {point.name: point for point in reversed(entry_points(group=self.group))}  # the first of a name counts
