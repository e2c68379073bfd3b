"""Thoughts of models that think before they answer: the marks that delimit them, as data, and the policy of scoring."""

from olmes_suite.thinking.reader import Reader, Split
from olmes_suite.thinking.readers import AUTO, NONE, built_in, check_choice, choice_of, names, reader_of
from olmes_suite.thinking.thoughts import UNCLOSED, Parts, Thoughts, Unclosed, check_unclosed, recorded_reader

__all__ = [
    "AUTO", "NONE", "UNCLOSED", "Parts", "Reader", "Split", "Thoughts", "Unclosed", "built_in", "check_choice",
    "check_unclosed", "choice_of", "names", "reader_of", "recorded_reader",
]  # fmt: skip
