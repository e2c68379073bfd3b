"""The models that a recipe names: a served model, or a checkpoint on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.errors import ModelError, UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.factory import BACKENDS, CHECKPOINT, WITHOUT_MODEL, make_backend
from olmes_suite.records import canonical_json, sha256
from olmes_suite.thinking import check_choice
from olmes_suite.yaml_files import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Keys of a model in a recipe: which one, and how it samples."""

    model: str
    """The served name with `base_url`; otherwise a checkpoint's folder or Hub id."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server; its key is $OPENAI_API_KEY."""
    name: str | None = None
    """The name in rows and messages; by default the last part of `model`."""
    backend: str | None = None
    """Engine of a checkpoint: auto, hf, vllm, mock or an installed one."""
    temperature: float = 0.7
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int = 1024
    """Token limit of a completion, with its thought."""
    stop: tuple[str, ...] = ()
    system: str | None = None
    """System prompt, where the prompt has none."""
    concurrency: int = 64
    """Largest number of concurrent requests to a server."""
    tries: int = 7
    """Tries of a request to a server before it counts as failed."""
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    thinking: str = "auto"
    """Reader of thoughts: auto, none, a reader's name or its file."""
    price: tuple[float, ...] = ()
    """US dollars per million tokens: of prompts, of completions."""
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None

    @property
    def called(self) -> str:
        """The name in rows and messages."""
        return self.name or self.model.rstrip("/").rpartition("/")[2]

    @property
    def served(self) -> bool:
        """Whether a server runs the model."""
        return self.base_url is not None

    @property
    def engine(self) -> str:
        """The name of the backend."""
        return "openai" if self.served else self.backend or "auto"

    def sampling(self) -> dict[str, Any]:
        """Return the fields of a request that say how an answer is drawn."""
        return {
            "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "min_p": self.min_p,
            "max_tokens": self.max_tokens, "stop": self.stop,
        }  # fmt: skip


def check(model: Model, place: Place) -> None:
    """Check a model's keys before anything is loaded or sent. Raises UsageError that names the key."""

    def wrong(key: str, why: str) -> UsageError:
        return UsageError(f"{place.at(key)}: {why}")

    if model.served and model.backend not in (None, "openai"):
        raise wrong("backend", f"{model.backend} runs no served model; leave out `backend` or `base_url`")
    if not model.served and model.backend == "openai":
        raise wrong("backend", "openai needs `base_url`, the server's address, such as http://localhost:8000/v1")
    if not model.served and model.backend not in (None, "auto"):
        try:
            BACKENDS.check(str(model.backend))
        except UsageError as error:
            raise wrong("backend", str(error)) from None
    if model.base_url is not None and not model.base_url.startswith(("http://", "https://")):
        raise wrong("base_url", f"{model.base_url!r} is not a URL such as http://localhost:8000/v1")
    for key, least in (("max_tokens", 1), ("concurrency", 1), ("tries", 1)):
        if getattr(model, key) < least:
            raise wrong(key, f"expected a whole number of at least {least}, not {getattr(model, key)}")
    if not 0 <= model.temperature <= 5:
        raise wrong("temperature", f"expected a number from 0 to 5, not {model.temperature:g}")
    if model.top_p is not None and not 0 < model.top_p <= 1:
        raise wrong("top_p", f"expected a number above 0 and at most 1, not {model.top_p:g}")
    if model.top_k is not None and model.top_k < 1 and model.top_k != -1:
        raise wrong("top_k", f"expected a whole number of at least 1, or -1 for all tokens, not {model.top_k}")
    if model.min_p is not None and not 0 <= model.min_p <= 1:
        raise wrong("min_p", f"expected a number from 0 to 1, not {model.min_p:g}")
    if model.batch_size is not None and model.batch_size < 1:
        raise wrong("batch_size", f"expected a whole number of at least 1, not {model.batch_size}")
    if model.price and (len(model.price) != 2 or not all(0 <= one < math.inf for one in model.price)):
        raise wrong("price", "expected two numbers of US dollars: [per million prompt tokens, per million completion]")
    try:
        check_choice(model.thinking)
    except UsageError as error:
        raise wrong("thinking", str(error)) from None
    if not model.served:
        try:
            identity(model)
        except ModelError as error:
            raise wrong("model", f"{error}; for a served model, give `base_url`") from None


def identity(model: Model) -> str:
    """Return the SHA-256 of what, besides a request and its seed, decides a completion.

    A checkpoint is identified by its files; a served model by its name at the server and its name in the rows, wherever
    it is served. Raises ModelError.
    """
    what: dict[str, Any] = {"model": model.model}
    if model.served:
        what["called"] = model.called  # two servers may serve different models under one name
    elif model.engine in (*CHECKPOINT, "auto"):
        from olmes_suite.judges.checkpoints import digest_of

        what = {"checkpoint": digest_of(model.model), "dtype": model.dtype}
    return _digest(what, model)


def identity_by_address(model: Model) -> str:
    """Return the identity of a served model in journals of earlier versions, which held its address."""
    what = {"model": model.model, "base_url": str(model.base_url).rstrip("/")}
    return _digest(what, model)


def _digest(what: Mapping[str, Any], model: Model) -> str:
    return sha256(canonical_json([what, model.engine, dict(model.chat_template_args), model.thinking]))


def build(model: Model, seed: int) -> Backend:
    """Load the model, or connect to its server. Raises ModelError or UsageError."""
    options: dict[str, Any] = {}
    if model.engine not in WITHOUT_MODEL:
        options |= {"thinking": model.thinking, "chat_template_args": dict(model.chat_template_args) or None}
    if model.served:
        options |= {"base_url": model.base_url, "concurrency": model.concurrency, "tries": model.tries}
    else:
        options |= {"device": model.device, "dtype": model.dtype, "batch_size": model.batch_size}
    return make_backend(model.engine, model.model, seed=seed, **options)
