"""Requests for several workers, and the answers that one engine gives."""

from __future__ import annotations

from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.records import Request


def asks(number: int, samples: int = 1) -> list[Request]:
    return [Request("t", i, 0, "generate", text=f"Shots\n\nQuestion {i}", samples=samples) for i in range(number)]


def seeds_for(requests: list[Request]) -> list[list[int | None]]:
    return [list(range(request.samples)) for request in requests]


def texts(found) -> dict[tuple[int, int], str]:
    answers = [((position, sample), response.text) for position, sample, response in found]
    assert len(dict(answers)) == len(answers), "answered twice"
    return dict(answers)


def expected(requests: list[Request]) -> dict[tuple[int, int], str]:
    return texts(MockBackend().run(requests, seeds_for(requests)))
