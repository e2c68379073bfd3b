"""A judge that runs a local checkpoint after the candidate model is unloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from olmes_suite.files import cache_folder
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.cache import AnswerCache
from olmes_suite.judges.cached_judge import CachedJudge
from olmes_suite.judges.checkpoints import digest_of
from olmes_suite.models.base import Backend
from olmes_suite.records import Request, canonical_json, sha256
from olmes_suite.scoring.tools import ToolOptions

ENGINE = ("device", "dtype", "batch_size")
"""Options of the candidate's backend that also apply to the judge's backend."""


class LocalJudge(CachedJudge):
    """Loads the checkpoint for the first question that is not cached.

    Raises ModelError if there is no checkpoint of that name.
    """

    def __init__(
        self,
        name: str,
        options: ToolOptions,
        *,
        load: Callable[[], Backend] | None = None,
        digest: str | None = None,
    ) -> None:
        """`load` and `digest` replace the engine and the checkpoint's hash, for tests and plugins."""
        self.options = options
        self._load = load or self._make_backend
        self._backend: Backend | None = None
        identity = {"checkpoint": digest or digest_of(name), "dtype": options.engine.get("dtype")}
        self._fingerprint = sha256(canonical_json(identity))
        super().__init__(name, AnswerCache(cache_folder(), self._fingerprint, name))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's files and the precision."""
        return self._fingerprint

    def answers(self, asks: Sequence[tuple[str, Question]]) -> Iterator[tuple[str, Answer]]:
        """Yield (key, answer) as batches finish."""
        backend = self._backend = self._backend or self._load()
        requests = [_request(number, question, backend.chat) for number, (_, question) in enumerate(asks)]
        first: dict[int, tuple[tuple[str, float], ...]] = {}
        for top in sorted({question.top_logprobs for _, question in asks} - {0}):
            places = [number for number, (_, question) in enumerate(asks) if question.top_logprobs == top]
            for place, pairs in backend.alternatives([requests[number] for number in places], top):
                first[places[place]] = tuple(pairs)
        for number, _, response in backend.run(requests, [[int(key[:15], 16)] for key, _ in asks]):
            self.usage.truncated += response.truncated
            answer = Answer(
                response.text or "", first.get(number, ()), response.prompt_tokens, response.completion_tokens
            )
            self.cache.put(asks[number][0], answer)
            yield asks[number][0], answer

    def _make_backend(self) -> Backend:
        from olmes_suite.models.factory import make_backend

        engine = {name: self.options.engine[name] for name in ENGINE if name in self.options.engine}
        return make_backend("auto", self.name, seed=self.options.seed, **engine)

    def close(self) -> None:
        """Free the model and close the cache."""
        super().close()
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def _request(number: int, question: Question, chat: bool) -> Request:
    """Convert a question to a backend's request; without a chat template, messages become paragraphs."""
    messages, text = question.messages, question.text
    if messages is not None and not chat:
        text = "\n\n".join(content for _, content in messages) + "\n\n"
        messages = None
    return Request(
        "judge", number, 0, "generate", messages, text,
        max_tokens=question.max_tokens, temperature=question.temperature,
    )  # fmt: skip
