"""Thoughts of models: found, kept apart from the answer by every engine alike, and not continued by prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judge_server import Reply, judge_server
from models_fixture import answers, generation, make_tiny_tokenizer
from pupil import MODELS, ask, backend, completion
from thinking_model import ALWAYS, OPENING, SAID, make_thinking_model, thinking_tokenizer

from olmes_suite.errors import UsageError
from olmes_suite.models.cache.backend import CachedBackend
from olmes_suite.models.cache.store import ResponseCache
from olmes_suite.models.factory import make_backend
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.thoughts import detect
from olmes_suite.records import Request, Response
from olmes_suite.thinking import Reader

PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
CHAT = {"text": None, "messages": (("user", "question 0"),)}
FIRST, SECOND = SAID.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_thinking_model(tmp_path_factory.mktemp("thinks"))


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    return make_backend("hf", str(folder), device="cpu")


def fields(response: Response) -> tuple[Any, ...]:
    return response.text, response.thinking, response.unclosed, response.thinking_tokens


class TestFinding:
    """The reader that a model's template and tokens call for."""

    @pytest.mark.parametrize(
        ("template", "tail", "added", "name"),
        [
            ("…{{ '<think>\n' }}", "<|im_start|>assistant\n<think>\n", ["<think>", "</think>"], "think"),
            ("{% set c = content.split('</think>')[-1] %}", "<|im_start|>assistant\n", [], "think"),
            ("", "", ["<think>", "</think>", "<s>"], "think"),
            ("{{ '<|channel>thought\n' }}", "<|turn>model\n", [], "gemma"),
            ("<|start|>assistant<|channel|>analysis<|message|>", "<|start|>assistant", [], "harmony"),
            ("", "", ["[THINK]", "[/THINK]", "[INST]"], "magistral"),
            ("<|begin_of_thought|>", "", [], "sky"),
            ("<think> <|im_start|>answer", "x<|im_start|>think", [], "s1"),
            ("{{ message.content }}", "<|assistant|>\n", ["<|im_start|>", "<|im_end|>", "<s>", "<think>"], None),
        ],
    )
    def test_by_evidence(self, template: str, tail: str, added: list[str], name: str | None) -> None:
        found = detect(template, tail, added)
        assert (found[0].name if found else None) == name

    def test_a_model_without_marks_stays_as_it_was(self, tiny_checkpoint: Path) -> None:
        made = Encoder(make_tiny_tokenizer())
        assert made.thoughts is None and made.settings() == {} and made.notes("m") == []
        plain = make_backend("hf", str(tiny_checkpoint), device="cpu")
        empty = make_backend("hf", str(tiny_checkpoint), device="cpu", thinking="auto", unclosed="empty")
        none = make_backend("hf", str(tiny_checkpoint), device="cpu", thinking="none", prefill="send")
        assert plain.fingerprint == empty.fingerprint == none.fingerprint
        assert "thinking" not in plain.settings()

    @pytest.mark.long
    def test_reader_and_policy_are_in_the_fingerprint_and_in_the_notes(self, folder: Path, hf: Any) -> None:
        others = [
            make_backend("hf", str(folder), device="cpu", **options)
            for options in ({"unclosed": "empty"}, {"thinking": "none"}, {"prefill": "drop"}, {"thinking": "sky"})
        ]
        assert len({hf.fingerprint, *(other.fingerprint for other in others)}) == 5
        assert hf.settings()["thinking"] == {
            "reader": "think", "open": "<think>", "close": ["</think>"], "answer": ["<answer>", "</answer>"],
            "unclosed": "reference", "prefill": "closed", "log_likelihood": {"enable_thinking": False},
        }  # fmt: skip
        assert [note for note in hf.notes() if "reader think, from the rendered chat template" in note]
        assert [note for note in hf.notes() if "follow an empty thought" in note]
        assert [note for note in hf.notes() if "log-likelihoods" in note]

    @pytest.mark.parametrize("options", [{"thinking": "thnik"}, {"unclosed": "all"}, {"prefill": "keep"}])
    def test_wrong_options_are_one_line(self, options: dict[str, str]) -> None:
        with pytest.raises(UsageError) as caught:
            Encoder(thinking_tokenizer(), **options)
        assert "\n" not in str(caught.value) and next(iter(options.values())) in str(caught.value)

    def test_closed_needs_a_template_that_can(self) -> None:
        with pytest.raises(UsageError, match="cannot switch the thought off"):
            Encoder(thinking_tokenizer(ALWAYS), prefill="closed")

    def test_a_turn_does_not_end_at_a_mark(self) -> None:
        """A token after the assistant's text ends answers, unless it is part of a mark."""
        template = (
            "{% for m in messages %}<|m|>{{ m.content }}{{ '</think>' if m.role == 'assistant' else '' }}{% endfor %}"
        )
        assert Encoder(thinking_tokenizer(template)).turn_end is None


class TestPrompts:
    """What a prompt holds where the template opens a thought."""

    def render(self, template: str, request: Request, **options: Any) -> str:
        return Encoder(thinking_tokenizer(template), **options).render(request)

    @pytest.mark.parametrize(
        ("template", "options", "end"),
        [
            (OPENING, {}, "<|assistant|>\n<think>\n\n</think>\n\nAnswer:"),
            (OPENING, {"prefill": "drop"}, "<|assistant|>\n<think>\n"),
            (OPENING, {"prefill": "send"}, "<|assistant|>\n<think>\nAnswer:"),
            (OPENING, {"thinking": "none"}, "<|assistant|>\n<think>\nAnswer:"),
            (ALWAYS, {}, "<|assistant|>\n<think>\n"),
            (PLAIN, {}, "A:Answer:"),
            (PLAIN, {"thinking": "none", "prefill": "drop"}, "A:"),
        ],
    )
    def test_the_start_of_an_answer(self, template: str, options: dict[str, str], end: str) -> None:
        request = generation(0, **CHAT, prefix="Answer:")
        assert self.render(template, request, **options).endswith(f"question 0\n{end}")

    def test_without_a_start_the_model_thinks(self) -> None:
        assert self.render(OPENING, generation(0, **CHAT)).endswith("<|assistant|>\n<think>\n")

    @pytest.mark.parametrize(
        ("template", "end"),
        [(OPENING, "<think>\n\n</think>\n\n"), (OPENING.replace("<think>\n{% endif", "{% endif"),
         "<think>\n\n</think>\n\n"), (ALWAYS, "<think>\n"), (PLAIN, "A:")],
    )  # fmt: skip
    def test_log_likelihoods_are_asked_without_a_thought_where_the_template_can(self, template: str, end: str) -> None:
        request = Request("t", 0, 0, "loglikelihood", messages=(("user", "question 0"),), continuation=" A")
        assert self.render(template, request).endswith(end)
        notes = " ".join(Encoder(thinking_tokenizer(template)).notes("m"))
        assert ("switched off (enable_thinking=false)" in notes) == ("enable_thinking" in template)
        assert ("inside the thought, which" in notes) == (template == ALWAYS)


class TestResponses:
    """Text, thought and their tokens, equal for every engine."""

    def test_hf_keeps_the_thought_and_all_that_was_said(self, hf: Any) -> None:
        first, second = answers(hf, ask(2, max_tokens=64))
        assert fields(first)[:3] == ("\n\nThe answer is (B). \n", "12 * 2 = 24 eggs a day.\n", False)
        assert first.raw == FIRST
        assert fields(second)[:3] == ("AB", "the old clock\n</think>no, the children\n", False)
        assert second.raw == SECOND  # with the special token inside the answer, which a text does not hold
        for response in (first, second):
            ids = hf.tokenizer(response.raw, add_special_tokens=False)["input_ids"]
            mark = hf.tokenizer.convert_tokens_to_ids("</think>")
            assert response.thinking_tokens == len(ids) - ids[::-1].index(mark)
            assert response.completion_tokens == len(ids) + 1

    def test_none_gives_what_is_said_today(self, folder: Path) -> None:
        (first,) = answers(make_backend("hf", str(folder), device="cpu", thinking="none"), ask(1, max_tokens=64))
        assert (first.text, first.raw, first.thinking) == (FIRST.replace("</think>", ""), None, None)

    @pytest.mark.parametrize(("policy", "text"), [("reference", "12 * 2 = 2"), ("empty", "")])
    def test_a_thought_without_an_end(self, folder: Path, hf: Any, policy: str, text: str) -> None:
        made = make_backend("hf", str(folder), device="cpu", unclosed=policy)
        (first,) = answers(made, ask(1, max_tokens=10))
        assert FIRST.startswith(first.raw or first.text or "?")
        assert first.unclosed and first.thinking_tokens == first.completion_tokens == 10
        assert first.text == ("" if policy == "empty" else first.thinking)
        assert first.finish_reason == "length"

    def test_stop_strings_cut_before_the_thought_is_read(self, hf: Any) -> None:
        (first,) = answers(hf, ask(1, max_tokens=64, stop=("eggs",)))
        assert (first.unclosed, first.text) == (True, "12 * 2 = 24 ")
        (first,) = answers(hf, ask(1, max_tokens=64, stop=("(B",)))
        assert (first.unclosed, first.text) == (False, "\n\nThe answer is ")
        assert "(B" in (first.raw or "")

    @pytest.mark.parametrize("marks", [("day.", "."), ("24 eggs", " ("), ("=", "is")])
    def test_marks_of_several_tokens_are_counted(self, folder: Path, marks: tuple[str, str]) -> None:
        made = make_backend("hf", str(folder), device="cpu", thinking=Reader("nothing", marks, template_opens=True))
        (first,) = answers(made, ask(1, max_tokens=64))
        end = max(FIRST.rfind(mark) + len(mark) for mark in marks)
        ids = made.tokenizer(FIRST, add_special_tokens=False)["input_ids"]
        assert first.thinking_tokens is not None and first.text == FIRST[end:].replace("</think>", "")
        assert len(made.tokenizer.decode(ids[: first.thinking_tokens])) >= end
        assert len(made.tokenizer.decode(ids[: first.thinking_tokens - 1])) < end

    @pytest.mark.parametrize("limit", [64, 10])
    def test_a_server_gives_the_same_with_and_without_a_channel(self, hf: Any, limit: int) -> None:
        (ours,) = answers(hf, ask(1, max_tokens=limit))
        said = FIRST if limit == 64 else str(ours.text)
        finish = "stop" if limit == 64 else "length"

        def whole(body: Any, before: int) -> Reply:
            return Reply(reported(body, {"content": f"<think>\n{said}"}))

        def apart(body: Any, before: int) -> Reply:
            thought, mark, text = said.partition("</think>")
            return Reply(reported(body, {"content": text if mark else None, "reasoning_content": thought}))

        def reported(body: Any, message: dict[str, Any]) -> Any:
            answer = completion(body, [""], finish=finish)
            answer["choices"][0]["message"] |= message
            details = {"reasoning_tokens": ours.thinking_tokens}
            answer["usage"] |= {"completion_tokens": ours.completion_tokens, "completion_tokens_details": details}
            return answer

        for reply in (whole, apart):
            with judge_server(reply, models=MODELS) as served:
                (theirs,) = answers(backend(served), ask(1, max_tokens=limit))
            expected = replace(ours, text=f"<think>\n{said}") if reply is whole and limit == 10 else ours
            assert fields(theirs) == fields(expected)
            assert theirs.finish_reason == ours.finish_reason

    def test_the_cache_keeps_them(self, hf: Any, tmp_path: Path) -> None:
        cached = CachedBackend(hf, ResponseCache(tmp_path), "m")
        first, again = answers(cached, ask(1, max_tokens=10)), answers(cached, ask(1, max_tokens=10))
        assert first == again and again[0].unclosed and cached.found == 1


class TestChannels:
    """Messages of servers."""

    def message(
        self,
        message: Any,
        finish: str = "stop",
        usage: Any = None,
        choice: Any = None,
        request: Any = None,
        **options: Any,
    ) -> Response:
        def reply(body: Any, before: int) -> Reply:
            answer = completion(body, [""], finish=finish)
            answer["choices"][0] |= {"message": {"role": "assistant", **message}, **(choice or {})}
            answer["usage"] |= {"completion_tokens": 100, **(usage or {})}
            return Reply(answer)

        with judge_server(reply, models=MODELS) as served:
            (found,) = answers(backend(served, tries=1, **options), ask(1, **(request or {})))
        return found

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_a_channel(self, name: str) -> None:
        assert fields(self.message({"content": " B ", name: "a" * 22})) == (" B ", "a" * 22, False, 88)
        assert fields(self.message({"content": None, name: "aa"}, "length")) == ("aa", "aa", True, 100)
        assert fields(self.message({"content": "", name: "aa"}, "length")) == ("aa", "aa", True, 100)
        assert fields(self.message({"content": None, name: "aa"}, "length", unclosed="empty")) == ("", "aa", True, 100)
        assert fields(self.message({name: "aa"}, "length"))[1:3] == ("aa", True)
        assert fields(self.message({"content": "B", name: None})) == ("B", None, False, None)
        assert fields(self.message({"content": "B", name: ""})) == ("B", None, False, None)
        assert fields(self.message({"content": "B", name: "aa"}, thinking="none")) == ("B", None, False, None)

    @pytest.mark.parametrize(
        ("ended", "stop", "unclosed"),
        [({}, (), False), ({"stop_reason": None}, ("Q:",), False), ({"matched_stop": 1}, ("Q:",), False),
         ({"stop_reason": "Q:"}, ("Q:",), True), ({"matched_stop": "Q:"}, ("Q:",), True), ({}, ("Q:",), True)],
    )  # fmt: skip
    def test_no_content_after_a_thought(self, ended: dict[str, Any], stop: tuple[str, ...], unclosed: bool) -> None:
        """A null is an empty answer where the model ended by itself, and no answer where the thought was cut."""
        for content in (None, [{"type": "thinking", "thinking": "aa"}]):
            message = {"content": content, "reasoning_content": "aa"}
            found = self.message(message, choice=ended, request={"stop": stop})
            assert fields(found)[:3] == ("aa" if unclosed else "", "aa", unclosed)

    def test_parts(self) -> None:
        parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "B"}]
        assert fields(self.message({"content": parts}))[:3] == ("B", "a", False)
        assert fields(self.message({"content": [{"type": "text", "text": "B"}, "C"]}))[:3] == ("BC", None, False)
        assert fields(self.message({"content": parts[:1]}, "length"))[:3] == ("a", "a", True)
        assert fields(self.message({"content": [{"type": "reasoning", "text": "a"}, parts[1]]}))[:2] == ("B", "a")

    def test_tokens_are_those_that_the_server_reports(self) -> None:
        usage = {"completion_tokens_details": {"reasoning_tokens": 60}}
        assert self.message({"content": "B", "reasoning": "a"}, usage=usage).thinking_tokens == 60
        assert self.message({"content": "B", "reasoning": "a"}, usage={"reasoning_tokens": 40}).thinking_tokens == 40
        assert self.message({"content": "<think>aa</think>B" + "c" * 17}).thinking_tokens == 49
        for wrong in (None, 3, {"reasoning_tokens": "many"}, {"reasoning_tokens": -1}):
            found = self.message({"content": "B", "reasoning": "a"}, usage={"completion_tokens_details": wrong})
            assert found.thinking_tokens == 50

    def test_text_with_marks(self) -> None:
        found = self.message({"content": "<think>\na</think>\n\nB"})
        assert (found.text, found.thinking, found.raw) == ("\n\nB", "a", "<think>\na</think>\n\nB")
        assert self.message({"content": "<answer>B</answer>"}).text == "<answer>B</answer>"
        assert self.message({"content": "<answer>B</answer>"}, thinking="think").text == "B"
        assert self.message({"content": "[THINK]a[/THINK]B"}, thinking="magistral").text == "B"
        assert self.message({"content": "a</think>B"}, thinking="none").text == "a</think>B"

    def test_a_thought_that_the_servers_template_opened(self) -> None:
        """Without a mark, only the user can know that the model was thinking."""
        assert not self.message({"content": "aa"}, "length").unclosed
        assert fields(self.message({"content": "aa"}, "length", thinking="think")) == ("aa", "aa", True, 100)
        assert fields(self.message({"content": "B"}, "stop", thinking="think")) == ("B", None, False, None)

    def test_only_what_is_asked_for_is_another_fingerprint(self) -> None:
        with judge_server(lambda b, _: Reply(completion(b)), models=MODELS) as served:
            plain, auto = backend(served), backend(served, thinking="auto", unclosed="reference")
            others = [backend(served, **options) for options in (
                {"thinking": "think"}, {"thinking": "none"}, {"unclosed": "empty"}, {"thinking": "sky"})]  # fmt: skip
            assert plain.fingerprint == auto.fingerprint
            assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 5
            with pytest.raises(UsageError, match="send or drop"):
                backend(served, prefill="closed")
