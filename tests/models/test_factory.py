"""Backends by name: built-in ones, wrong names, entry points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from models_fixture import (
    one_line,
)

from olmes_suite.errors import UsageError
from olmes_suite.models.factory import BACKENDS, BUILT_IN, backend_names, fields_of, make_backend
from olmes_suite.models.without_model.floor import FloorBackend
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.models.without_model.oracle import OracleBackend


class Foreign(MockBackend):
    """Another package's backend."""

    def __init__(self, model: str, *, base_url: str | None = None) -> None:
        super().__init__(model)
        self.base_url = base_url

    fields = frozenset({"top_k"})


class TestFactory:
    """Names and options."""

    def test_built_in_names(self, tiny_checkpoint: Path) -> None:
        assert isinstance(make_backend("mock", None, batch_size=4, seed=1), MockBackend)
        assert isinstance(make_backend("floor", None, answer="echo"), FloorBackend)
        assert isinstance(make_backend("oracle", None, answers=lambda request: "x"), OracleBackend)
        assert type(make_backend("auto", str(tiny_checkpoint), device="cpu", dtype=None)).__name__ == "HFBackend"

    def test_wrong_names_and_options(self, tiny_checkpoint: Path) -> None:
        one_line(lambda: make_backend("moc", None), "did you mean 'mock'", UsageError)
        one_line(lambda: make_backend("zzz", "x"), "known: auto, hf", UsageError)
        one_line(lambda: make_backend("hf", None), "needs --model", UsageError)
        one_line(lambda: make_backend("hf", str(tiny_checkpoint), base_url="x"), "no option --base-url", UsageError)
        one_line(lambda: make_backend("oracle", None), "needs --answers", UsageError)

    def test_the_fields_of_built_in_backends_are_those_of_their_classes(self) -> None:
        for name in BUILT_IN:
            assert BACKENDS.load(name).fields == fields_of(name)

    @pytest.fixture
    def points(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        from importlib.metadata import EntryPoint

        made = [
            EntryPoint("foreign", f"{__name__}:Foreign", "olmes.backends"),
            EntryPoint("gone", "no_such_module_here:X", "olmes.backends"),
        ]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: made)
        yield

    @pytest.mark.usefixtures("points")
    def test_entry_points(self) -> None:
        backend = make_backend("foreign", "m", base_url="http://x", seed=1)
        assert isinstance(backend, Foreign)
        assert (backend.model, backend.base_url) == ("m", "http://x")
        assert "foreign" in backend_names()
        assert fields_of("foreign") == {"top_k"}
        one_line(lambda: make_backend("gone", "m"), "cannot be imported", UsageError)
