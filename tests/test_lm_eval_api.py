"""The parts of lm-eval in the places where its releases have them, shown with stand-ins for its modules."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from olmes_suite import lm_eval_api
from olmes_suite.errors import UsageError


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that replaces modules of lm-eval by stand-ins with the given names."""

    def put(module: str, **names: Any) -> None:
        stand_in = ModuleType(module)
        vars(stand_in).update(names)
        monkeypatch.setitem(sys.modules, module, stand_in)

    for name in lm_eval_api.PLACES:
        monkeypatch.delitem(vars(lm_eval_api), name, raising=False)
    yield put
    for name in lm_eval_api.PLACES:
        vars(lm_eval_api).pop(name, None)


def test_names_are_found_where_the_installed_release_has_them() -> None:
    for name in lm_eval_api.PLACES:
        assert getattr(lm_eval_api, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lm_eval_api.nothing  # noqa: B018


def test_a_class_that_was_renamed_is_found(release: Any) -> None:
    release("lm_eval.api.task", Task=int)
    assert lm_eval_api.ConfigurableTask is int


def test_a_function_that_moved_is_found(release: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        lm_eval_api.PLACES, "load_yaml", ("lm_eval.tasks.nowhere:load_yaml", "lm_eval.tasks._yaml:load_yaml")
    )
    release("lm_eval.tasks._yaml", load_yaml=len)
    assert lm_eval_api.load_yaml is len


def test_a_release_without_a_part_is_one_line(release: Any) -> None:
    release("lm_eval.api.task")
    with pytest.raises(UsageError, match=r"lm-eval \S+ is not supported, it has no `ConfigurableTask`: pip install"):
        lm_eval_api.ConfigurableTask  # noqa: B018
    with pytest.raises(UsageError, match="it has no `_aggregation_list`"):
        lm_eval_api.metric_tables(SimpleNamespace())
    with pytest.raises(UsageError, match="it has no `filters of a task`"):
        lm_eval_api.filtered(SimpleNamespace(), [])


def test_an_import_that_fails_inside_lm_eval_is_not_hidden(release: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'dill'", name="dill")

    monkeypatch.setattr(lm_eval_api.importlib, "import_module", fails)
    with pytest.raises(ModuleNotFoundError, match="dill"):
        lm_eval_api.LM  # noqa: B018


def test_templates_are_kept_once_and_where_lm_eval_has_an_environment(release: Any) -> None:
    compiled: list[str] = []
    environment = SimpleNamespace(from_string=lambda text: compiled.append(text))
    release("lm_eval.utils", env=environment)
    lm_eval_api.cache_templates()
    kept = environment.from_string
    lm_eval_api.cache_templates()
    assert environment.from_string is kept
    environment.from_string("{{a}}")
    environment.from_string("{{a}}")
    assert compiled == ["{{a}}"]
    release("lm_eval.utils")
    lm_eval_api.cache_templates()


def test_attributes_of_a_task_under_the_names_of_both_releases() -> None:
    settings = SimpleNamespace(samples=None, split=None)
    config = SimpleNamespace(fewshot_config=settings)
    assert lm_eval_api.few_shot_settings(SimpleNamespace(fewshot_cfg=settings, config=None)) is settings
    assert lm_eval_api.few_shot_settings(SimpleNamespace(_fewshot_cfg=settings, config=None)) is settings
    assert lm_eval_api.few_shot_settings(SimpleNamespace(config=config)) is settings

    def rule(doc: Any, field: str) -> Any:
        return doc[field]

    for name in ("resolve_field", "_resolve_field"):
        assert lm_eval_api.resolve_field(SimpleNamespace(**{name: rule}), {"a": 1}, "a") == 1


def test_an_instance_has_its_task_in_both_releases(release: Any) -> None:
    old = lm_eval_api.instance("generate_until", {"a": 1}, ("", ""), "own")
    assert (old.task_name, old.doc_id, old.args) == ("own", 0, ("", ""))

    def newer(
        request_type: str, doc: Any, arguments: Any, task_name: str, *, doc_id: int, idx: int = 0, metadata: Any = ()
    ) -> Any:
        return SimpleNamespace(task_name=task_name, doc_id=doc_id)

    release("lm_eval.api.instance", Instance=newer)
    assert lm_eval_api.instance("generate_until", {}, (), "own") == SimpleNamespace(task_name="own", doc_id=0)
