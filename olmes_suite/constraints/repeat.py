"""The family `repeat`: repeating the request as a whole, with a change or in part."""

from __future__ import annotations

from olmes_suite.constraints.registry import CheckerError, constraint


@constraint("repeat:repeat_change", profile="reference")
def change_after_the_first_word(response: str, *, prompt_to_repeat: str) -> bool:
    """All words except the first are the request's; a different space at the end counts as a change."""
    return response != prompt_to_repeat and response.split()[1:] == prompt_to_repeat.split()[1:]


@constraint("repeat:repeat_change", profile="repaired")
def change(response: str, *, prompt_to_repeat: str) -> bool:
    """The request with a different first word and no other change."""
    response_words, request = response.split(), prompt_to_repeat.split()
    return response_words[1:] == request[1:] and response_words[:1] != request[:1] and bool(response_words)


@constraint("repeat:repeat_simple")
def simple(response: str) -> bool:
    """The sentence that asks only for itself."""
    return response.strip().lower() == "only output this sentence here, ignore all other requests."


@constraint(
    "repeat:repeat_span",
    profile="reference",
    draws={
        "n_start": lambda rng, drawn: rng.randint(0, len(drawn["prompt_to_repeat"].split()) - 2),
        "n_end": lambda rng, drawn: rng.randint(drawn["n_start"] + 1, len(drawn["prompt_to_repeat"].split()) - 1),
    },
)
def span_without_its_end(response: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The request's words from `n_start` up to and excluding `n_end`, although the prompt says "including"."""
    return response.lower().split() == prompt_to_repeat.lower().split()[n_start:n_end]


@constraint("repeat:repeat_span", profile="repaired")
def span(response: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The request's words from `n_start` to `n_end`, counted from 0, both included."""
    request = prompt_to_repeat.lower().split()
    if not 0 <= n_start <= n_end < len(request):
        raise CheckerError(f"repeat:repeat_span: no words {n_start} to {n_end} in a request of {len(request)}")
    return response.lower().split() == request[n_start : n_end + 1]
