"""Properties of the 29 training constraints: a text made to follow one passes, and a corrupted one fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from train_plugins.verifiers import Malformed, iftrain

WORDS = (
    "sea", "lake", "river", "stone", "cloud", "meadow", "harbour", "willow", "ember", "frost", "lantern",
    "copper", "velvet", "orchard", "tunnel", "bridge", "castle", "forest", "garden", "island", "jungle",
    "kettle", "ladder", "mirror", "needle", "quarry", "ribbon", "saddle", "timber", "valley",
)  # fmt: skip
"""No word contains another, and none is a palindrome."""
Made = tuple[dict[str, Any], str, str]
"""Arguments, a text that follows the constraint, and one that does not."""
MAKERS: dict[str, Callable[[random.Random], Made]] = {}


def of(*names: str) -> Callable[[Callable[[random.Random], Made]], Callable[[random.Random], Made]]:
    def add(make: Callable[[random.Random], Made]) -> Callable[[random.Random], Made]:
        MAKERS.update(dict.fromkeys(names, make))
        return make

    return add


def words(rng: random.Random, count: int) -> list[str]:
    return rng.sample(WORDS, count)


def sentence(rng: random.Random, count: int) -> str:
    return " ".join(words(rng, count)).capitalize() + "."


@of("copy:copy", "copy:copying_simple")
def copied(rng: random.Random) -> Made:
    text = sentence(rng, 5)
    return {"prompt_to_repeat": text}, f" {text.upper()}\n", text + " and"


@of("copy:copying_multiple")
def copied_several(rng: random.Random) -> Made:
    text, count = sentence(rng, 4), rng.randint(2, 5)
    return {"prompt_to_repeat": text, "N": count}, "\n******\n".join([text] * count), "\n******\n".join(
        [text] * (count + rng.choice([-1, 1])))  # fmt: skip


@of("new:copy_span_idx")
def copied_span(rng: random.Random) -> Made:
    text = "".join(words(rng, 4))
    start = rng.randint(0, 5)
    end = start + rng.randint(3, 9)
    return {"prompt_to_repeat": text, "n_start": start, "n_end": end}, text[start:end], text[start : end + 1]


@of("copy:repeat_phrase")
def phrase_varied(rng: random.Random) -> Made:
    *phrase, other, more = words(rng, 6)
    spans = [" ".join([phrase[0], other, *phrase[2:]]), " ".join([*phrase[:2], more, phrase[3]])]
    return {"phrase": " ".join(phrase), "small_n": 2}, ", ".join(spans), f"{spans[0]}, {' '.join(phrase)}"


@of("keywords:word_once")
def word_once(rng: random.Random) -> Made:
    chosen = words(rng, 6)
    return {"keyword": chosen[2]}, " ".join(chosen), " ".join([*chosen, chosen[2]])


@of("keywords:word_count_different_numbers")
def word_counted(rng: random.Random) -> Made:
    word, other = words(rng, 2)
    count = rng.randint(1, 5)
    enough, fewer = f"{other} " + f"{word} " * count, f"{other} " + f"{word} " * (count - 1)
    if rng.random() < 0.5:
        return {"keyword": word, "frequency": count, "relation": "at least"}, enough, fewer
    return {"keyword": word, "frequency": count, "relation": "less than"}, fewer, enough


@of("keywords:exclude_word_harder")
def word_excluded(rng: random.Random) -> Made:
    first, word, last = words(rng, 3)
    return {"keyword": word, "instruction": "x"}, f"{first} {last}", f"{first} {word} {last}"


@of("keywords:no_adjacent_consecutive")
def initials(rng: random.Random) -> Made:
    place = rng.randrange(25)
    letter, following = "abcdefghijklmnopqrstuvwxyz"[place : place + 2]
    return {}, f"{letter}x {letter}y {letter}", f"{letter}x {following.upper()}y"


@of("keywords:palindrome")
def palindrome(rng: random.Random) -> Made:
    plain = words(rng, 4)
    half = plain[0]
    return {}, " ".join([*plain, half + half[::-1]]), " ".join(plain)


@of("keywords:keyword_specific_position")
def placed(rng: random.Random) -> Made:
    lists = [words(rng, 5) for _ in range(3)]
    n, m = rng.randrange(3), rng.randrange(1, 5)
    lists = [[one if one != "timber" else "table" for one in chosen] for chosen in lists]
    wrong = ". ".join(" ".join(one).capitalize() for one in lists) + "."
    lists[n][m] = "timber"
    right = ". ".join(" ".join(one).capitalize() for one in lists) + "."
    return {"keyword": "timber", "n": n + 1, "m": m + 1}, right, wrong


@of("keywords:start_end")
def starts_and_ends(rng: random.Random) -> Made:
    chosen = words(rng, 4)
    return {}, " ".join([*chosen, chosen[0].upper()]), " ".join(chosen)


@of("paragraphs:paragraphs")
def by_stars(rng: random.Random) -> Made:
    parts = [sentence(rng, 4) for _ in range(3)]
    return {}, "\n***\n".join(parts[:2]), rng.choice([parts[0], "\n***\n".join(parts)])


@of("paragraphs:paragraphs2")
def by_blank_lines(rng: random.Random) -> Made:
    parts = [sentence(rng, 4) for _ in range(3)]
    return {}, "\n\n".join(parts[:2]), rng.choice(["\n".join(parts), "\n\n".join(parts)])


@of("first_word:first_word_sent")
def sentences_start(rng: random.Random) -> Made:
    word, *others = words(rng, 4)
    each = [f"{word.capitalize()} is {one}." for one in others]
    return {"first_word": word}, " ".join(each), " ".join([*each, "It was."])


@of("first_word:first_word_answer")
def answer_starts(rng: random.Random) -> Made:
    word, other = words(rng, 2)
    return {"first_word": [word]}, f"{word.upper()} {other}", f"{other} {word}"


@of("last_word:last_word_sent")
def sentences_end(rng: random.Random) -> Made:
    word, *others = words(rng, 4)
    each = [f"{one.capitalize()} and {word}{rng.choice('.!?')}" for one in others]
    return {"last_word": word}, " ".join(each), " ".join([*each, "It was."])


@of("last_word:last_word_answer")
def answer_ends(rng: random.Random) -> Made:
    word, other = words(rng, 2)
    return {"last_word": word}, f"{other} {word.upper()}!", f"{word} {other}!"


@of("detectable_format:square_brackets")
def in_brackets(rng: random.Random) -> Made:
    right = [f"[{one}]" for one in words(rng, 5)]
    wrong = list(right)
    place = rng.randrange(5)
    wrong[place] = wrong[place].strip(rng.choice("[]"))
    return {}, " ".join(right), " ".join(wrong)


@of("detectable_format:bigram_wrapping")
def pairs(rng: random.Random) -> Made:
    chosen = words(rng, 6)
    right = [f"<<{one} {other}>>" for one, other in zip(chosen[::2], chosen[1::2], strict=True)]
    place = rng.randrange(3)
    return {}, " ".join(right), " ".join([*right[:place], right[place].strip(rng.choice("<>")), *right[place + 1 :]])


@of("detectable_format:sentence_hyphens")
def hyphens(rng: random.Random) -> Made:
    parts = [sentence(rng, 4) for _ in range(3)]
    return {}, "-".join(parts), rng.choice([" - ".join(parts), " ".join(parts)])


@of("punctuation:punctuation_dot")
def no_dot(rng: random.Random) -> Made:
    text = sentence(rng, 5)
    return {}, text.rstrip("."), text


@of("punctuation:punctuation_exclamation")
def no_exclamation(rng: random.Random) -> Made:
    text = sentence(rng, 5)
    return {}, text, text + "!"


@of("count:lowercase_counting")
def lower(rng: random.Random) -> Made:
    count = rng.randint(1, 6)
    chosen = words(rng, count + 1)
    return {"N": count}, " ".join(chosen[:-1]) + " HERE", " ".join(chosen)


@of("count:count_unique")
def unique(rng: random.Random) -> Made:
    chosen = words(rng, 6)
    return {}, " ".join(chosen), " ".join([*chosen, rng.choice(chosen)])


@of("count:count_increment_word")
def once_and_twice(rng: random.Random) -> Made:
    one, two, other = words(rng, 3)
    right = f"{one} {two} {other} {two}"
    return {"keyword1": one, "keyword2": two}, right, f"{right} {rng.choice([one, two])}"


@of("count:counting_composition")
def composition(rng: random.Random) -> Made:
    count, size = rng.randint(1, 3), rng.randint(3, 6)  # the full stop is a token
    parts = [[sentence(rng, size - 1) for _ in range(count)] for _ in range(3)]
    right = "\n***\n".join(" ".join(part) for part in parts)
    parts[rng.randrange(3)].append(sentence(rng, size - 1))
    return {"n_sent": count, "n_words": size}, right, "\n***\n".join(" ".join(part) for part in parts)


@of("letters:letter_counting")
def letters(rng: random.Random) -> Made:
    count = rng.randint(1, 30)
    enough, fewer = "1 2 " + "a" * count, "1 2 " + "b" * (count - 1)
    if rng.random() < 0.5:
        return {"N": count, "relation": "at least"}, enough, fewer
    return {"N": count, "relation": "less than"}, fewer, enough


@of("letters:letter_counting2")
def one_letter(rng: random.Random) -> Made:
    letter, count = rng.choice("abcxyz"), rng.randint(1, 9)
    enough, fewer = "1 " + letter.upper() * count, "1 " + letter * (count - 1)
    given = {"letter": letter, "let_frequency": count}
    if rng.random() < 0.5:
        return {**given, "let_relation": "at least"}, enough, fewer
    return {**given, "let_relation": "less than"}, fewer, enough


@pytest.mark.parametrize("name", sorted(iftrain.TABLE))
def test_a_text_that_follows_passes_and_a_corrupted_one_fails(name: str, request: Any) -> None:
    if iftrain.TABLE[name].needs_nltk:
        request.getfixturevalue("punkt_tab")
    for seed in range(40):
        arguments, right, wrong = MAKERS[name](random.Random(f"{name} {seed}"))
        assert iftrain.follows(name, arguments, right), (seed, arguments, right)
        assert not iftrain.follows(name, arguments, wrong), (seed, arguments, wrong)
        assert not iftrain.follows(name, arguments, " \n")


WRONG: list[Any] = [float("nan"), float("inf"), -1, 1.5, True, None, "", " ", "3", [], [1, 2], {}, {"a": 1}, b"x"]


@pytest.mark.parametrize("name", sorted(iftrain.TABLE))
def test_an_argument_of_a_wrong_type_is_refused_or_used(name: str) -> None:
    """No value raises anything but Malformed, and a number is never read from a text or a fraction."""
    arguments, *_ = MAKERS[name](random.Random(1))
    for key in iftrain.TABLE[name].arguments:
        number = iftrain.TABLE[name].arguments[key] in ("count", "number")
        for value in (*WRONG, 10**400):
            given = {**arguments, key: value}
            if number and value != 10**400:
                with pytest.raises(Malformed, match=key):
                    iftrain.arguments_of(name, given)
                continue
            try:
                iftrain.arguments_of(name, given)
            except Malformed as error:
                assert name in str(error) and key in str(error) and "\n" not in str(error)
