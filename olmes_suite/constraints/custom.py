"""custom: eleven prompts with a checker each."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import date
from itertools import pairwise

from olmes_suite.constraints.places import countries_of
from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import PUNCTUATION, ascii_only, bare, lines, listed, ruled_sentences, sentences, words


@constraint("custom:character_reverse", profile="reference")
def eagle_backwards(response: str) -> bool:
    """It holds "bald eagle" backwards."""
    return "elgae dlab" in response.lower()


@constraint("custom:character_reverse", profile="repaired")
def sentence_backwards(response: str) -> bool:
    """Read backwards it is more than "bald eagle", which it does not say forwards too."""
    text = response.lower()
    return "elgae dlab" in text and "bald eagle" not in text and len(words(response)) > 2


@constraint("custom:word_reverse", profile="reference")
def eagle_by_words(response: str) -> bool:
    """Its words in reverse hold "bald eagle"; without punctuation they are one sentence to the reference."""
    return "bald eagle" in " ".join(bare(response.lower()).split()[::-1])


@constraint("custom:word_reverse", profile="repaired")
def sentence_by_words(response: str) -> bool:
    """Its words in reverse are a sentence, not only a name, that says "bald eagle"; forwards they do not."""
    found = words(response.lower())
    return "bald eagle" in " ".join(found[::-1]) and "bald eagle" not in " ".join(found) and len(found) > 3


_CAPITALS = listed("capitals")
"""The reference's list: Kyiv is not in it."""


@constraint("custom:european_capitals_sort", profile="reference")
def capitals_without_kyiv(response: str) -> bool:
    """The 27 capitals of the reference's list, which lacks Kyiv, in order."""
    return [city.strip() for city in ascii_only(response).split(",") if city.strip()] == [*_CAPITALS]


@constraint("custom:european_capitals_sort", profile="repaired")
def capitals(response: str) -> bool:
    """The 28 capitals north of 45 degrees, Kyiv (50.45) between Brussels and Prague; a full stop at the end is free."""
    place = _CAPITALS.index("Prague")
    found = [city.strip().lower() for city in ascii_only(response).strip().rstrip(".").split(",")]
    named = ["kyiv" if city == "kiev" else city for city in found]
    return named == [city.lower() for city in (*_CAPITALS[:place], "Kyiv", *_CAPITALS[place:])]


def _header(names: str, between: str) -> re.Pattern[str]:
    return re.compile(between.join(f'({name}|"{name}")' for name in names.split()) + "$")


_PRODUCTS = _header("ProductID Category Brand Price Stock", r",[ \t]*")
_STUDENTS = _header("StudentID Subject Grade Semester Score", r"\t *")
_CITY = ["ID", "Country", "City", "Year", "Count"]


def _rows(text: str, delimiter: str = ",", keep_quotes: bool = False) -> list[list[str]]:
    """Rows of a CSV; with `keep_quotes` quotation marks stay in their fields."""
    return list(csv.reader(io.StringIO(text.replace('"', '"""') if keep_quotes else text), delimiter=delimiter))


def _unfenced(response: str) -> str:
    """The text without space at its ends and without a code fence around it."""
    fenced = re.fullmatch(r"```\w*\n(.*?)\n?```", response.strip(), re.DOTALL)
    return (fenced[1] if fenced else response).strip()


@constraint("custom:csv_city", profile="reference")
def city_rows(response: str) -> bool:
    """Eight rows of five fields, the first one the header, exactly."""
    rows = _rows(response)
    return len(rows) == 8 and rows[0] == _CITY and all(len(row) == 5 for row in rows)


@constraint("custom:csv_city", profile="repaired")
def filled_city_rows(response: str) -> bool:
    """Eight rows of five filled fields, the first one the header; a code fence and space around fields are free."""
    rows = [[field.strip() for field in row] for row in _rows(_unfenced(response))]
    return len(rows) == 8 and rows[0] == _CITY and all(len(row) == 5 and all(row) for row in rows)


_SPECIAL = re.compile(r"[^\d\w\s]")


def _special(text: str) -> bool:
    r"""A double quote, a special character and a double quote on one line: it matches `".*[^\d\w\s].*"`."""
    line = text.split("\n", 1)[0]
    return line.startswith('"') and _SPECIAL.search(line, 1, max(line.rfind('"'), 1)) is not None


@constraint("custom:csv_special_character", profile="reference")
def special_field_somewhere(response: str) -> bool:
    """Fifteen rows with the header, and a quoted field with a special character; rows after it are not looked at."""
    if not _PRODUCTS.match(response.split("\n")[0].strip()):
        return False
    rows = _rows(response, keep_quotes=True)
    if len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(map(_special, row)):
            return True
    return False


@constraint("custom:csv_special_character", profile="repaired")
def special_field(response: str) -> bool:
    """Fifteen rows of five fields with the header, and a quoted field with a special character."""
    text = _unfenced(response)
    rows = _rows(text, keep_quotes=True)
    shaped = bool(_PRODUCTS.match(text.split("\n")[0].strip())) and [len(row) for row in rows] == [5] * 15
    fields = [field.strip() for row in rows[1:] for field in row] if shaped else []
    return any(_special(field) and field.endswith('"') and "\n" not in field for field in fields)


@constraint("custom:csv_quotes", profile="reference")
def quoted_fields(response: str) -> bool:
    """Four rows of five tab-delimited fields, all quoted. Raises IndexError for an empty one, as the reference does."""
    if not _STUDENTS.match(response.split("\n")[0].strip()):
        return False
    rows = _rows(response, delimiter="\t", keep_quotes=True)
    return len(rows) == 4 and all(
        len(row) == 5 and all(field.strip()[0] == '"' == field.strip()[-1] for field in row) for row in rows
    )


@constraint("custom:csv_quotes", profile="repaired")
def quoted_and_filled_fields(response: str) -> bool:
    """Four rows of five tab-delimited fields with the header, all quoted and filled; a code fence is free."""
    text = _unfenced(response)
    rows = _rows(text, delimiter="\t", keep_quotes=True)
    return (
        bool(_STUDENTS.match(text.split("\n")[0].strip()))
        and [len(row) for row in rows] == [5] * 4
        and all(_quoted(field.strip()) for row in rows for field in row)
    )


def _quoted(field: str) -> bool:
    """The field is one quoted text that holds a word."""
    inner = field[1:-1]
    return len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner and re.search(r"\w", inner) is not None


_DAYS = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


@constraint("custom:date_format_list", profile="reference")
def dates_by_shape(response: str) -> bool:
    """Items like YYYY-MM-DD from 1769 to 1821; month 00 and day 00 pass, and so does a single date."""
    return all(map(_dated, response.strip().split(",")))


def _dated(item: str) -> bool:
    if not re.match(r"\d{4}-\d{2}-\d{2}$", item.strip()):
        return False
    year, month, day = map(int, item.strip().split("-"))
    return 1769 <= year <= 1821 and month <= 12 and day <= _DAYS.get(month, 99)


@constraint("custom:date_format_list", profile="repaired")
def dates(response: str) -> bool:
    """At least two days of the calendar, written YYYY-MM-DD, within Napoleon's life; a full stop at the end is free."""
    items = [item.strip() for item in response.strip().rstrip(".").split(",")]
    if not all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", item) for item in items):
        return False
    try:
        found = {date.fromisoformat(item) for item in items}
    except ValueError:
        return False
    return len(found) > 1 and date(1769, 8, 15) <= min(found) and max(found) <= date(1821, 5, 5)


@constraint("custom:multiples")
def multiples(response: str) -> bool:
    """The numbers in it are the multiples of 7 from 14 to 49."""
    return [int(number) for number in re.findall(r"\d+", response)] == list(range(14, 50, 7))


_QUESTION = re.compile(r"Question \d+[\.|\):;]?\s*")
_CHOICE = re.compile(r"([A-Ea-e])[\.|\)]\s*\w+")


def _longer_and_longer(questions: list[str], choices: Callable[[list[str]], bool]) -> bool:
    lengths = []
    for question in questions:
        found = [line.strip() for line in question.split("\n")]
        marks = [match[1] for line in found if (match := _CHOICE.match(line))]
        if not choices(marks):
            return False
        first = next(i for i, line in enumerate(found) if _CHOICE.match(line))
        lengths.append(len(" ".join(found[:first]).strip()))
    return len(lengths) == 4 and all(one < other for one, other in pairwise(lengths))


@constraint("custom:mcq_count_length", profile="reference")
def questions_by_count(response: str) -> bool:
    """Four "Question N" with five lines that begin like choices, ever longer; which letters is not looked at."""
    if not response.startswith("Question"):
        # The reference cuts at the first "Question" and compares; without one it keeps the last character.
        return False
    pieces = [piece.strip() for piece in _QUESTION.split(response)]
    return _longer_and_longer([piece for piece in pieces if piece], lambda marks: len(marks) == 5)


@constraint("custom:mcq_count_length", profile="repaired")
def questions_with_choices(response: str) -> bool:
    """Four questions that begin with "Question", numbered or not, with choices A to E in order, ever longer."""
    text = response.strip().replace("**", "")
    pieces = re.split(r"^Question\b[ \d]*[.):;]?\s*", text, flags=re.MULTILINE)
    if pieces[0].strip():
        return False
    return _longer_and_longer(pieces[1:], lambda marks: "".join(marks).upper() == "ABCDE")


@constraint("custom:reverse_newline", profile="reference")
def lines_down_from_zimbabwe(response: str) -> bool:
    """From the first line with Zimbabwe on at least 52 lines in reverse order; of what is not looked at."""
    ends = PUNCTUATION + " "
    found = [ascii_only(line.strip(ends)) for line in response.split("\n") if line.strip(ends)]
    start = next((place for place, line in enumerate(found) if "Zimbabwe" in line), len(found))
    return len(found) - start >= 52 and found[start:] == sorted(found[start:], reverse=True)


_AFRICA = frozenset(listed("africa"))


@constraint("custom:reverse_newline", profile="repaired")
def africa_reversed(response: str) -> bool:
    """The 54 countries of Africa, each on a line of its own, in reverse order of the names that are given.

    Numbers and bullets before a name are free; a line that is no country, such as a preamble, is not.
    """
    names = [_bare_name(ascii_only(line)).lower() for line in lines(response)]
    names = [name.removeprefix("the ") for name in names]
    known = countries_of()
    found = [known.get(name.replace(".", "")) for name in names]
    free = {"western sahara", "sahrawi arab democratic republic"}
    listed = [country for country, name in zip(found, names, strict=True) if name not in free]
    return len(listed) == len(_AFRICA) and set(listed) == _AFRICA and names == sorted(names, reverse=True)


def _bare_name(line: str) -> str:
    r"""The line without what stands around a name: `re.sub(r"^[\W\d_]+|[\W_]+$", "", line)`."""
    line = re.sub(r"^[\W\d_]+", "", line)
    end = len(line)
    while end and not line[end - 1].isalnum():
        end -= 1
    return line[:end]


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@constraint("custom:sentence_alphabet", profile="reference", version=2)
def sentences_from_a_to_z(response: str) -> bool:
    """26 sentences that begin with a to z; a quotation mark before the letter fails."""
    return "".join(sentence.lstrip()[0].lower() for sentence in ruled_sentences(response)) == _LETTERS


@constraint("custom:sentence_alphabet", profile="repaired", needs=("punkt_tab",))
def words_from_a_to_z(response: str) -> bool:
    """26 sentences whose first words begin with a to z; marks before a word are free."""
    found = [words(sentence.lower()) for sentence in sentences(response)]
    return "".join(each[0][0] for each in found if each) == _LETTERS
