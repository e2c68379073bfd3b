"""Constraints: properties over drawn texts."""

from __future__ import annotations

import pytest
from constraint_cases import PROFILES, document, follows
from hypothesis import given, settings
from hypothesis import strategies as st

from olmes_suite.constraints import verdicts
from olmes_suite.constraints.count import within
from olmes_suite.constraints.loose import loose_variants
from olmes_suite.constraints.registry import Profile, everything

TEXT = st.text(alphabet=st.sampled_from("abcdeAB .,!?;:*-'\"\n<i>/()[]1234é犬🙂"), max_size=60)
WITHOUT_PARAMETERS = [
    (profile, name) for profile in PROFILES for name, entry in everything(profile).items() if not entry.types
]
QUICK = [pair for pair in WITHOUT_PARAMETERS if "punkt_tab" not in everything(pair[0])[pair[1]].needs]
MAY_RAISE = {"words:alphabet", "words:last_first", "format:quote_unquote", "custom:csv_quotes"}
"""Checkers whose reference raises on what holds no letter; as "an error", not as a verdict."""


@pytest.mark.parametrize(("profile", "name"), QUICK)
@settings(deadline=None, max_examples=50)
@given(text=TEXT)
def test_a_verdict_on_anything(profile: Profile, name: str, text: str) -> None:
    """A checker gives a truth value for whatever is said; only some of the reference raise."""
    try:
        assert follows(name, profile, text) in (True, False)
    except (IndexError, ValueError):
        assert profile == "reference" and name in MAY_RAISE


@pytest.mark.long
@settings(deadline=None, max_examples=50)
@given(text=st.text(alphabet=" .,;:!?*-_#\"'()\n", max_size=30))
@pytest.mark.parametrize("name", [name for profile, name in QUICK if profile == "repaired"])
def test_nothing_but_marks_follows_no_repaired_constraint(name: str, text: str) -> None:
    """No vacuous pass: punctuation is no answer (but for those that ask for marks or for no space)."""
    if name not in ("format:no_whitespace", "format:parentheses", "count:punctuation"):
        assert not follows(name, "repaired", text)


@settings(deadline=None)
@given(one=st.text("abc", max_size=8), other=st.text("abc", max_size=8), limit=st.integers(0, 9))
def test_the_band_gives_the_distance(one: str, other: str, limit: int) -> None:
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    one, other = one[:5], other[:5]
    assert within(one, other, limit) == (distance(one, other) <= limit)


@settings(deadline=None)
@given(text=TEXT)
def test_loose_variants_only_take_away(text: str) -> None:
    variants = loose_variants(text)
    assert len(variants) == 8 and variants[0] == text
    assert all("*" not in variant for variant in variants[4:])
    assert all(variant in text for variant in variants[:4])


@settings(deadline=None)
@given(text=TEXT)
def test_strict_implies_loose(text: str) -> None:
    doc = document(("format:no_whitespace", {}), ("words:prime_lengths", {}), ("count:numbers", {"N": 1}))
    for profile in PROFILES:
        found = verdicts.verdicts(doc, text, profile)
        assert all(one.loose for one in found if one.strict)


@settings(deadline=None)
@given(n=st.integers(0, 12), words=st.lists(st.sampled_from(["rain", "Snow", "sun,", "it's"]), min_size=1, max_size=12))
def test_word_counts_are_monotone(n: int, words: list[str]) -> None:
    text = " ".join(words)
    assert follows("count:word_count_range", "repaired", text, min_words=0, max_words=n) == (len(words) <= n)
    if follows("words:repeats", "repaired", text, small_n=n):
        assert follows("words:repeats", "repaired", text, small_n=n + 1)
    if follows("count:unique_word_count", "repaired", text, N=n + 1):
        assert follows("count:unique_word_count", "repaired", text, N=n)


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["red", "green", "blue", "black", "white"]), min_size=3, max_size=10))
def test_a_copy_overlaps_wholly(words: list[str]) -> None:
    text = " ".join(words)
    assert follows("ratio:overlap", "repaired", text, reference_text=text, percentage=100)
    assert not follows("ratio:overlap", "repaired", text, reference_text="nothing of the kind", percentage=100)


@settings(deadline=None)
@given(depth=st.integers(1, 8), kinds=st.lists(st.sampled_from(["()", "[]", "{}"]), min_size=8, max_size=8))
def test_brackets_nest_five_deep(depth: int, kinds: list[str]) -> None:
    text = "".join(kind[0] for kind in kinds[:depth]) + "x" + "".join(kind[1] for kind in reversed(kinds[:depth]))
    for profile in PROFILES:
        assert follows("format:parentheses", profile, text) == (depth >= 5)
