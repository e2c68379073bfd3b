"""Places in a text, by a spaCy model that the user names, and the countries that they lie in."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from olmes_suite.constraints.text import ascii_only
from olmes_suite.scoring import language_resources


def places(text: str) -> list[str]:
    """Geopolitical entities (spaCy's label GPE) in order. Raises MissingData without $OLMES_SPACY_MODEL."""
    language_resources.require(["spacy_model"])
    model = language_resources.spacy_model(os.environ[language_resources.SPACY_MODEL])
    return [entity.text for entity in model(text).ents if entity.label_ == "GPE"]


def countries_named(found: Iterable[str]) -> set[str]:
    """The countries of places: a country by its names, else the country of a capital or another large city.

    Of "Lyon, France" what stands after the comma counts; a place that `countries.txt` does not have counts for none.
    """
    known = countries_of()
    return {known[key] for key in (_key(place.split(",")[-1]) for place in found) if key in known}


@functools.lru_cache(maxsize=1)
def countries_of() -> dict[str, str]:
    """Every name in `countries.txt`, normalised, to its country; a country's own names win over a city's."""
    cities: dict[str, str] = {}
    countries: dict[str, str] = {}
    for line in Path(__file__).with_name("countries.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        names, _, places_in = line.partition("|")
        own = [name.strip() for name in names.split(",")]
        countries |= {_key(name): own[0] for name in own}
        cities |= {_key(name): own[0] for name in places_in.split(",") if name.strip()}
    return cities | countries


def _key(name: str) -> str:
    return ascii_only(name).lower().replace(".", "").strip().removeprefix("the ")
