"""Places in a text, recognised by the user's spaCy model, and the countries where the places are."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from olmes_suite.constraints.text import ascii_only
from olmes_suite.scoring import language_resources


def places(text: str) -> list[str]:
    """Return the geopolitical entities (spaCy's label GPE) in order. Raises MissingData without $OLMES_SPACY_MODEL."""
    language_resources.require(["spacy_model"])
    model = language_resources.spacy_model(os.environ[language_resources.SPACY_MODEL])
    return [entity.text for entity in model(text).ents if entity.label_ == "GPE"]


def countries_named(names: Iterable[str]) -> set[str]:
    """Return the countries of places, each the name of a country, of a capital or of another large city.

    For "Lyon, France" the part after the last comma counts; a place that is not in `countries.txt` is skipped.
    """
    known = countries_of()
    return {known[key] for key in (_key(place.split(",")[-1]) for place in names) if key in known}


@functools.lru_cache(maxsize=1)
def countries_of() -> dict[str, str]:
    """Map each name in `countries.txt`, normalised, to its country. A name of a country wins over a city's."""
    cities: dict[str, str] = {}
    countries: dict[str, str] = {}
    for line in Path(__file__).with_name("countries.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        country_part, _, city_part = line.partition("|")
        names = [name.strip() for name in country_part.split(",")]
        countries |= {_key(name): names[0] for name in names}
        cities |= {_key(name): names[0] for name in city_part.split(",") if name.strip()}
    return cities | countries


def _key(name: str) -> str:
    return ascii_only(name).lower().replace(".", "").strip().removeprefix("the ")
