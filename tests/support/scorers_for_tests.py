"""Scorers that misbehave, for the scoring pool's tests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import scorer


@scorer(isolated=True, timeout=0.5)
def hangs(doc: Mapping[str, Any], response: str) -> Scored:
    while doc["hang"]:
        time.sleep(0.1)
    return Scored({"m": 1.0})


@scorer(isolated=True)
def raises(doc: Mapping[str, Any], response: str) -> Scored:
    return Scored({"m": doc["absent"]})


@scorer(isolated=True)
def fills_the_memory(doc: Mapping[str, Any], response: str) -> Scored:
    return Scored({"m": float(len(bytes(doc["gib"] * 2**30)) == 0)})
