"""What tells rows of one name apart: the settings in which their runs differ, otherwise the runs themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leaderboard.page_data import Row

SHOWN = 3
"""Number of settings that a row shows."""
_VERSIONS = ("torch", "transformers", "vllm", "olmes-suite")
"""Facts that are shown only where nothing else differs."""


def told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the name that their runs were given, and with what tells rows of equal names apart.

    Rows whose recipes differ are told apart by them already.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row.name, row.recipe), []).append(number)
    out = [*rows]
    for members in groups.values():
        if len(members) > 1:
            texts = _texts([rows[number] for number in members])
            for number, text in zip(members, texts, strict=True):
                out[number] = replace(rows[number], apart=text)
    return out


def _texts(rows: Sequence[Row]) -> list[str]:
    """Return a text for each row that no other one has, as far as the records allow it."""
    given = [str(name) if (name := given_name(row)) else "" for row in rows]
    if len(set(given)) == len(rows):
        return given
    keys = _differing([row.facts for row in rows])
    texts = []
    for row, name in zip(rows, given, strict=True):
        parts = [f"{key} {row.facts.get(key, 'none')}" for key in keys[:SHOWN]]
        texts.append(", ".join([*([name] if name else []), *parts, *(["…"] if len(keys) > SHOWN else [])]))
    return [text if texts.count(text) == 1 else _with_run(text, row) for text, row in zip(texts, rows, strict=True)]


def given_name(row: Row) -> str:
    """Return the name that the user gave the newest run (`olmes eval --name`); "" for none."""
    manifest = row.runs[0].manifest if row.runs else None
    name = getattr(manifest, "name", None) or (manifest.extra.get("name") if manifest is not None else None)
    return name if isinstance(name, str) and name != row.name else ""


def _differing(facts: Sequence[Mapping[str, str]]) -> list[str]:
    keys = [key for key in dict.fromkeys(key for one in facts for key in one) if len({f.get(key) for f in facts}) > 1]
    return [key for key in keys if key not in _VERSIONS] or keys


def _with_run(text: str, row: Row) -> str:
    return f"{text}, {row.id}" if text else row.id
