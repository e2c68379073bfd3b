"""Settings over those of the tasks: who wins, what is refused, and what a profile says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.models.model_args import parse
from olmes_suite.records import CONTEXT, Request
from olmes_suite.tasks import profiles
from olmes_suite.tasks.generation_kwargs import sampling
from olmes_suite.tasks.overrides import checked, merged
from olmes_suite.tasks.settings import Settings, system_text

TASK = {"until": ["Q:"], "max_gen_toks": 512, "temperature": 0.0, "do_sample": False}


class TestWhoWins:
    """The command over the profile over the task."""

    def test_in_this_order(self) -> None:
        settings = Settings.of(profile="qwen3_think", gen_kwargs={"max_new_tokens": 100, "top_k": 5})
        found = sampling(merged(TASK, settings.sampled))
        assert (found.temperature, found.top_p, found.more, found.max_tokens) == (0.6, 0.95, {"top_k": 5}, 100)
        assert found.stop == ("Q:",)

    def test_the_command_turns_a_profile_greedy(self) -> None:
        for own in ({"temperature": 0}, {"do_sample": False}):
            assert sampling(merged(TASK, Settings.of(profile="olmo3", gen_kwargs=own).sampled)).temperature == 0

    def test_the_command_samples_over_a_greedy_profile(self) -> None:
        settings = Settings.of(profile="greedy", gen_kwargs={"temperature": 0.7})
        assert sampling(merged(TASK, settings.sampled)).temperature == 0.7

    def test_samples_system_and_arguments(self) -> None:
        settings = Settings.of(profile="qwen3_no_think", samples=3, chat_template_args={"enable_thinking": True})
        assert (settings.samples, settings.chat_template_args) == (3, {"enable_thinking": True})
        assert Settings.of(profile="deepseek_r1").system == ""
        assert Settings.of(profile="deepseek_r1", system="Be brief.").system == "Be brief."

    @pytest.mark.parametrize("same", [{}, {"temperature": 0}, {"max_tokens": 512}, {"stop": "Q:"}, {"top_k": 0}])
    def test_a_value_that_the_task_has_changes_nothing(self, same: dict[str, Any]) -> None:
        assert merged(TASK, checked(same, "x")) == TASK

    def test_equal_values_in_other_words_are_one_setting(self) -> None:
        one = merged(TASK, checked({"temperature": 1, "max_new_tokens": 9}, "x"))
        assert one == merged(TASK, checked({"max_tokens": 9, "temperature": "1.0"}, "x"))

    def test_default_leaves_a_field_to_the_server(self) -> None:
        found = sampling(merged({"temperature": 0.7, "top_p": 0.9}, checked({"temperature": "default"}, "x")))
        assert found.unset == ("temperature",) and found.temperature > 0
        assert sampling(merged({"temperature": 0.7, "top_p": 0.9}, checked({"top_p": None}, "x"))).top_p is None

    def test_a_manifest_gives_the_settings_back(self) -> None:
        settings = Settings.of(profile="olmo3", gen_kwargs={"stop": ["a", "b"]}, samples=2, system="S")
        again = Settings.from_json(settings.as_json())
        assert (again.sampled, again.samples, again.system) == (settings.sampled, 2, "S")
        assert Settings.of().as_json() is None and not Settings.of()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"gen_kwargs": {"tempature": 1}}, "did you mean 'temperature'"),
    ({"gen_kwargs": {"max_new_token": 1}}, "did you mean 'max_new_tokens'"),
    ({"gen_kwargs": {"seed": 1}}, "use --seed"),
    ({"gen_kwargs": {"n": 4}}, "use --samples"),
    ({"gen_kwargs": {"temperature": -1}}, "a number from 0"),
    ({"gen_kwargs": {"temperature": "warm"}}, "a number"),
    ({"gen_kwargs": {"temperature": True}}, "a number"),
    ({"gen_kwargs": {"temperature": float("nan")}}, "a number"),
    ({"gen_kwargs": {"top_p": 0}}, "above 0, at most 1"),
    ({"gen_kwargs": {"top_p": 1.5}}, "above 0, at most 1"),
    ({"gen_kwargs": {"top_k": 1.5}}, "a whole number"),
    ({"gen_kwargs": {"repetition_penalty": 0}}, "above 0"),
    ({"gen_kwargs": {"presence_penalty": 3}}, "from -2 to 2"),
    ({"gen_kwargs": {"max_tokens": 0}}, "tokens from 1, or context"),
    ({"gen_kwargs": {"max_tokens": "all"}}, "tokens from 1, or context"),
    ({"gen_kwargs": {"until": [""]}}, "not empty"),
    ({"gen_kwargs": {"do_sample": "yes"}}, "true or false"),
    ({"gen_kwargs": {"max_tokens": 5, "max_gen_toks": 9}}, "the same setting"),
    ({"gen_kwargs": {"do_sample": False, "temperature": 0.7}}, "contradicts"),
    ({"gen_kwargs": {"do_sample": True, "temperature": 0}}, "contradicts"),
    ({"gen_kwargs": {"temperature": 0, "top_p": 0.9}}, "no effect at temperature 0"),
    ({"gen_kwargs": {"temperature": 0}, "samples": 4}, "all equal"),
    ({"profile": "greedy", "samples": 4}, "all equal"),
    ({"samples": 0}, "1 or more"),
    ({"profile": "qwen3_thinking"}, "did you mean 'qwen3_think'"),
    ({"profile": "mine.yaml"}, "no such file"),
    ({"chat_template_args": {"tokenize": True}}, "leave it out"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=str)
def test_a_mistake_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Settings.of(**options)
    assert "\n" not in str(caught.value)


class TestProfiles:
    """The shipped files, and files of users."""

    @pytest.mark.parametrize("name", profiles.names())
    def test_each_is_valid_and_names_its_source(self, name: str) -> None:
        profile = profiles.load(name)
        assert profile.about and profile.source
        assert Settings.of(profile=name)

    def test_the_values(self) -> None:
        values = {name: Settings.of(profile=name) for name in profiles.names()}
        assert values["olmo3"].sampled == {"temperature": 0.6, "top_p": 0.95, "max_tokens": CONTEXT}
        assert values["qwen3_think"].sampled["max_tokens"] == 32768
        assert values["qwen3_no_think"].chat_template_args == {"enable_thinking": False}
        assert values["gpt_oss_high"].chat_template_args == {"reasoning_effort": "high"}
        assert values["greedy"].sampled == {"temperature": 0.0}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("gen_kwarg: {}", "line 1: unknown key 'gen_kwarg', did you mean 'gen_kwargs'"),
            ("about: x\ngen_kwargs: {temprature: 1}", "line 2: gen_kwargs: unknown setting 'temprature', did you mean"),
            ("gen_kwargs: 3", "expected a mapping"),
            ("samples: 0", "line 1: samples"),
            ("samples: many", "a whole number"),
            ("", "is empty"),
            ("a: [", "cannot be read"),
        ],
    )
    def test_a_users_mistake_is_named_with_its_line(self, tmp_path: Path, text: str, words: str) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        with pytest.raises(UsageError, match=words) as caught:
            Settings.of(profile=str(file))
        assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)

    def test_a_users_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text("gen_kwargs: {max_new_tokens: 7, temperature: 5e-1}\nsamples: 2\nsystem: Hi.\n")
        settings = Settings.of(profile=str(file))
        assert settings.sampled == {"max_tokens": 7, "temperature": 0.5}
        assert (settings.samples, settings.system) == (2, "Hi.")
        assert yaml_files.read(file).data


class TestSystem:
    """A system prompt of the user, beside the task's own."""

    def request(self, *messages: tuple[str, str], text: str | None = None) -> Request:
        return Request("t", 0, 0, "generate", messages=messages or None, text=text)

    def test_it_comes_first(self) -> None:
        from olmes_suite.tasks.task import with_system

        own = self.request(("system", "own"), ("user", "q"))
        assert with_system(own, "S").messages == (("system", "S\n\nown"), ("user", "q"))
        assert with_system(self.request(("user", "q")), "S").messages == (("system", "S"), ("user", "q"))
        assert with_system(self.request(text="q"), "S").text == "S\n\nq"

    def test_an_empty_one_moves_the_tasks_own_into_the_users_turn(self) -> None:
        from olmes_suite.tasks.task import with_system

        own = self.request(("system", "own"), ("user", "q"))
        assert with_system(own, "").messages == (("user", "own\n\nq"),)
        assert with_system(self.request(("user", "q")), "").messages == (("user", "q"),)
        assert with_system(self.request(text="q"), "").text == "q"

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "s.txt").write_text("Be brief.\n")
        assert system_text(f"@{tmp_path / 's.txt'}") == "Be brief."
        assert system_text("a @ b") == "a @ b" and system_text(None) is None
        with pytest.raises(UsageError, match="@FILE"):
            system_text("@/no/such/file")


@pytest.mark.parametrize("text", ["Question:", "Question: x", "- a", "? b"])
def test_a_text_that_yaml_would_read_as_more_is_a_stop_string(text: str) -> None:
    assert parse(f"stop={text},max_tokens=5", "--gen-kwargs") == {"stop": text, "max_tokens": 5}
    assert parse('stop=["Q:"],a={b: 1}') == {"stop": ["Q:"], "a": {"b": 1}}
