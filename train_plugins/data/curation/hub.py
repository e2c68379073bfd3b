"""Data sets on the Hub, for recipes that make data."""

from __future__ import annotations

from typing import Any

from olmes_suite.errors import MissingData, one_line


def load(name: str, split: str) -> Any:
    """Return the rows of a data set. Raises MissingData where it cannot be loaded."""
    from datasets import load_dataset

    try:
        return load_dataset(name, split=split)
    except Exception as error:  # the Hub's client raises many types
        raise MissingData(
            f"{name} ({split}): cannot be loaded from the Hub ({one_line(error)}); use a local `path` instead"
        ) from None
