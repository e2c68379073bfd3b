"""Plugins by name: built-in ones from a table, then those that other packages install as entry points.

Looking up a name imports nothing; `load` imports the plugin's module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line, nearest


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins of a kind."""

    kind: str
    """Name of the kind in errors, such as `backend` or `stage`."""
    group: str
    """Group of entry points with which other packages add plugins."""
    built_in: Mapping[str, str] = field(default_factory=dict)
    """Name to `module:attribute`. Other packages cannot replace built-in plugins."""
    reserved: tuple[str, ...] = ()
    """Further names that the caller resolves, such as `auto`."""

    def names(self) -> list[str]:
        """Return all known names, built-in ones first."""
        fixed = [*self.reserved, *self.built_in]
        return [*fixed, *sorted(name for name in self._installed() if name not in fixed)]

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
        except Exception as error:  # a module of another package can raise any type
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"{self.kind} {name!r} ({point.value}) cannot be imported: {reason}") from None

    def unknown(self, name: str) -> UsageError:
        """Build the error for an unknown name, with the nearest and all known names."""
        known = self.names()
        return UsageError(f"unknown {self.kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}")

    def _installed(self) -> Mapping[str, Any]:
        from importlib.metadata import entry_points

        return {
            point.name: point for point in reversed(entry_points(group=self.group))
        }  # the first of equal names wins
