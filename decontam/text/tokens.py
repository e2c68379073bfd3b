"""The tokenisation of evaluation and training text.

A text is brought to Unicode NFKC and case-folded (`casefold(NFKC(text))`). A token is a maximal run of word characters
(`\\w` of Python's `re`); in scripts that are written without spaces every word character is a separate token. With
`symbols`, so is every symbol (`is_symbol`): brackets and operators, but no punctuation of sentences.

Two implementations give the same tokens: `tokenize` here, on Python strings, and the single pass over UTF-8 bytes of
`decontam.matching.kernel`, which reads the table that `character_table` makes from this module's rules.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 2
"""Increased whenever any text would get different tokens; part of the key of every cache."""

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x303C),
    (0x3041, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x323AF),
)
"""Code point ranges (ends included) of scripts without spaces between words. Hangul has spaces, so it is not here."""

_CLASS = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
_TOKEN = re.compile(f"[^\\W{_CLASS}]+|(?=\\w)[{_CLASS}]")
_SPACE = re.compile(r"\s")
_SYMBOL_KINDS = frozenset({"Sm", "So", "Ps", "Pe"})
"""Unicode categories of mathematical and other symbols, and of opening and closing brackets."""
_MORE_SYMBOLS = frozenset("*/%&@#^-")
"""ASCII characters that are operators, although Unicode lists them as punctuation or modifiers."""
_JAMO = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))


def normalize(text: str) -> str:
    """Bring a text to NFKC, then apply full case folding."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def is_symbol(char: str) -> bool:
    """Whether a character is a token in texts that are read with `symbols`."""
    return char in _MORE_SYMBOLS or unicodedata.category(char) in _SYMBOL_KINDS


@lru_cache(maxsize=2)
def _pattern(symbols: bool) -> re.Pattern[str]:
    """Return the pattern of a token."""
    if not symbols:
        return _TOKEN
    own = re.escape("".join(filter(is_symbol, _every_character())))
    return re.compile(f"{_TOKEN.pattern}|[{own}]")


def tokenize(text: str, *, symbols: bool = False) -> list[str]:
    """Split a text into its tokens, in order."""
    return _pattern(symbols).findall(normalize(text))


def spans(text: str, *, symbols: bool = False) -> list[tuple[int, int]]:
    """Return [start, end) of every token of `tokenize`, in code points of the original text."""
    token = _pattern(symbols)
    if text.isascii():
        return [match.span() for match in token.finditer(text.casefold())]
    folded: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end in _chunks(text):
        piece = normalize(text[start:end])
        folded.append(piece)
        starts += [start] * len(piece)
        ends += [end] * len(piece)
    return [(starts[match.start()], ends[match.end() - 1]) for match in token.finditer("".join(folded))]


PIECE = 4096
"""The smallest number of characters in a piece."""


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text into pieces [start, end) whose tokens, one piece after the other, are the tokens of the text.

    A piece ends with white space that no character after it joins. In a long text with few characters that only Python
    can normalise, few pieces contain them.
    """
    joins = joining()
    start = 0
    while start < len(text):
        spaces = (space.end() for space in _SPACE.finditer(text, start + PIECE))
        end = next((at for at in spaces if at < len(text) and text[at] not in joins), len(text))
        yield start, end
        start = end


def code_points(words: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return (code points of all words, one after the other; where each word ends)."""
    import numpy as np

    codes = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return codes, np.cumsum([len(word) for word in words], dtype=np.int64)


def _chunks(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text into the smallest pieces whose NFKC forms, one after the other, are the NFKC form of the text."""
    joins = joining()
    start = 0
    for i in range(1, len(text)):
        if text[i] not in joins:
            yield start, i
            start = i
    if text:
        yield start, len(text)


@lru_cache(maxsize=1)
def joining() -> frozenset[str]:
    """Collect the characters that normalisation may join with the character before them.

    Their compatibility decomposition begins with a combining mark, or with a character that is the second of a
    canonical composition (Unicode Standard Annex 15: characters without a normalisation boundary before them).
    """
    second = {chr(code) for code in _JAMO}
    for char, canonical in zip(_every_character(), _each("NFD"), strict=True):
        if canonical != char:
            parts = unicodedata.decomposition(char).split()
            if len(parts) == 2:
                second.add(chr(int(parts[1], 16)))
    combining = unicodedata.combining
    return frozenset(
        char
        for char, parts in zip(_every_character(), _each("NFKD"), strict=True)
        if char >= "\x80" and (parts[0] in second or combining(parts[0]))
    )


@lru_cache(maxsize=1)
def _every_character() -> str:
    return "".join(map(chr, range(sys.maxunicode + 1)))


def _each(form: Literal["NFD", "NFKC", "NFKD"] | None, *, folded: bool = False) -> list[str]:
    """Compute a normal form of every single character in one call: no normal form joins across the end of a line."""
    whole = "\n".join(_every_character().replace("\n", " "))
    whole = unicodedata.normalize(form, whole) if form else whole
    forms = (whole.casefold() if folded else whole).split("\n")
    forms[ord("\n")] = "\n"
    return forms


SEPARATOR, WORD, ALONE, JOINS, SEVERAL = range(5)
"""Kinds of characters: between tokens, in a run, a token by itself, needs NFKC first, several characters."""


@lru_cache(maxsize=3)
def character_table(*, normalized: bool, symbols: bool = False) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Build the kernel's tables of code points, (table uint32[0x110000], expansions uint32[k]).

    An entry is kind << 24 | value: the folded code point for WORD and ALONE, for SEVERAL the place in `expansions` of
    its length, which that many entries follow. With `normalized` the text is already in NFKC and no character JOINS.
    With `symbols`, symbols are tokens.
    """
    import numpy as np

    table = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    for run in re.finditer(r"\w+", _every_character()):
        codes = np.arange(run.start(), run.end(), dtype=np.uint32)
        table[codes] = WORD << 24 | codes
    for low, high in UNSPACED:
        table[low : high + 1] ^= np.where(table[low : high + 1] > 0, (WORD ^ ALONE) << 24, 0).astype(np.uint32)
    if symbols:
        codes = np.array([code for code, char in enumerate(_every_character()) if is_symbol(char)], dtype=np.uint32)
        table[codes] = ALONE << 24 | codes
    expansions: list[int] = []
    forms = _each(None if normalized else "NFKC", folded=True)
    for code, (char, form) in enumerate(zip(_every_character(), forms, strict=True)):
        if form == char:
            continue
        entries = [_entry(c, symbols) for c in form]
        if len(entries) == 1 or not any(entries):
            table[code] = entries[0]
        else:
            table[code] = SEVERAL << 24 | len(expansions)
            expansions += [len(entries), *entries]
    if not normalized:
        table[[ord(char) for char in joining()]] = JOINS << 24
    made = table, np.array(expansions, dtype=np.uint32)
    for array in made:  # shared by all callers, and compiled code is made for arrays that are read only
        array.flags.writeable = False
    return made


def _entry(char: str, symbols: bool) -> int:
    code = ord(char)
    if symbols and is_symbol(char):
        return ALONE << 24 | code
    if _TOKEN.fullmatch(char) is None:
        return SEPARATOR
    return (ALONE if any(low <= code <= high for low, high in UNSPACED) else WORD) << 24 | code
