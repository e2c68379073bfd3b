"""Encoding of requests as token ids: chat template, special tokens, boundary between context and continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.errors import ModelError, RequestFailed, first_line
from olmes_suite.models.local import thoughts
from olmes_suite.models.local.chat_template import ChatTemplate
from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.records import Request


class Encoder:
    """A tokenizer with a chat template, as the transformers backends use it.

    A rendered chat gets only the special tokens of the template (as in OLMES). Plain text gets the special tokens that
    the tokenizer adds, unless it already starts with the BOS token: the rule of lm-eval's `hf` model.
    """

    def __init__(
        self, tokenizer: Tokenizer, chat_template: str | None = None, template_args: Mapping[str, Any] | None = None, *,
        thinking: object = None, unclosed: str | None = None, prefill: str | None = None,
    ) -> None:  # fmt: skip
        """Adapt to a tokenizer and its chat template, which `chat_template` replaces and which gets `template_args`.

        `thinking`, `unclosed` and `prefill` say how thoughts and starts of answers are treated, as on the command
        line. Raises UsageError for wrong values.
        """
        self.tokenizer = tokenizer
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        self.chat = bool(tokenizer.chat_template)
        self.template_args = dict(template_args or {})
        self.double_bos = False
        self.embeddings: int | None = None
        """The number of the model's embeddings, above every valid token id; None where it is unknown."""
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prefix_id: int = next((token for token in (bos, eos, tokenizer.pad_token_id) if token is not None), 0)
        self.prefix_text: str = tokenizer.decode([self.prefix_id])
        self.template = ChatTemplate(tokenizer, template_args) if self.chat else None
        self.turn_end = self.template.turn_end() if self.template else None
        """The token that the chat template writes after an assistant's turn."""
        self.thoughts = thoughts.find(tokenizer, self.template, thinking=thinking, unclosed=unclosed, prefill=prefill)
        """How thoughts are read; None for a model without thoughts."""
        if self.thoughts and self.turn_end in self.thoughts.marks:
            self.turn_end = None
        self.drop_prefix = self.thoughts is None and prefill == "drop"
        if self.template and tokenizer.bos_token is not None and tokenizer.encode("a")[:1] == [bos]:
            self.double_bos = self.template.apply([{"role": "user", "content": "a"}]).startswith(tokenizer.bos_token)

    def check_ids(self, embeddings: int, name: str) -> None:
        """Raise ModelError where a token of every prompt has no embedding in the model.

        Later prompts are checked one by one.
        """
        self.embeddings = embeddings
        ids = [self.prefix_id]
        if self.template:
            ids += self._encode([self.template.apply([{"role": "user", "content": "a"}])], [False])[0]
        if max(ids) >= embeddings:
            raise ModelError(
                f"{name}: its prompts contain the token {self.tokenizer.decode([max(ids)])!r} (id {max(ids)}), and the "
                f"model has {embeddings} embeddings; use the model's own tokenizer, or resize its embeddings"
            )

    def unused_arguments(self) -> tuple[str, ...]:
        """Return the names of the chat template's arguments that make no difference to prompts."""
        return tuple(self.template.unknown_arguments() if self.template else self.template_args)

    def notes(self, name: str) -> list[str]:
        """Return lines for the user about the chat template and the BOS token of the model `name`."""
        lines = []
        if not self.chat:
            lines.append(f"{name} has no chat template: plain text is used (set one with --chat-template FILE)")
            if self.template_args:
                lines.append(f"{name}: --chat-template-args has no effect without a chat template")
        if self.double_bos:
            lines.append(f"{name}: the chat template writes the BOS token; the tokenizer does not add another one")
        if self.drop_prefix:
            lines.append("assistant prefixes are dropped from the prompts (--prefill drop): scores may differ")
        more = [*(self.template.notes() if self.template else ()), *(self.thoughts.notes() if self.thoughts else ())]
        return [*lines, *(f"{name}: {line}" for line in more)]

    def settings(self) -> dict[str, Any]:
        """Return the adaptations of the chat template, and the reading of thoughts, for the model's fingerprint."""
        dropped = {"prefill": "drop"} if self.drop_prefix else {}
        return {**(self.template.settings() if self.template else {}), **dropped, **self.thinking()}

    def thinking(self) -> dict[str, Any]:
        """Return the reading of thoughts as a setting; empty for a model without thoughts."""
        return {"thinking": self.thoughts.settings()} if self.thoughts else {}

    def render(self, request: Request) -> str:
        """Return the text that the model continues. Raises RequestFailed where the chat template refuses it."""
        if request.messages is None:
            return (request.text or "") + request.prefix
        if self.template is None:
            raise RequestFailed(
                f"{request.task}: its prompts are chat messages and the model has no chat template; "
                "give --chat-template FILE"
            )
        if self.template.lost and sum(role == "user" for role, _ in request.messages) > 1:
            raise RequestFailed(
                f"{request.task}: has several turns, and the chat template leaves out {self.template.lost} of a "
                "conversation; give another one with --chat-template FILE"
            )
        try:
            how = self._rendering(request)
            return self.template.apply(request.chat, arguments=how.arguments) + how.prefix
        except Exception as error:  # a template is a program, which may raise anything
            raise RequestFailed(
                f"{request.task}: the chat template refuses document {request.doc_id} ({first_line(error)})"
            ) from None

    def _rendering(self, request: Request) -> thoughts.Rendering:
        if self.thoughts is not None:
            return self.thoughts.rendering(request)
        dropped = self.drop_prefix and request.kind == "generate"
        return thoughts.Rendering("" if dropped else request.prefix, {})

    def prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the token ids of the prompts of generation requests."""
        texts = [self.render(request) for request in requests]
        bos = self.tokenizer.bos_token
        plain = [request.messages is None for request in requests]
        encoded = self._encode(
            texts,
            [is_plain and not (bos and text.startswith(bos)) for text, is_plain in zip(texts, plain, strict=True)],
        )
        for request, ids in zip(requests, encoded, strict=True):
            self._check(request, ids)
        return encoded

    def _check(self, request: Request, ids: Sequence[int]) -> None:
        """Raise RequestFailed for a token without an embedding."""
        if self.embeddings is not None and max(ids, default=0) >= self.embeddings:
            raise RequestFailed(
                f"{request.task}: document {request.doc_id} contains the token {self.tokenizer.decode([max(ids)])!r} "
                f"(id {max(ids)}), and the model has {self.embeddings} embeddings; use the model's own tokenizer"
            )

    def pairs(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """Return the token ids (context, continuation) of log-likelihood requests; both are non-empty.

        The boundary is lm-eval's (`TemplateLM._encode_pair`): the context's trailing white space belongs to the
        continuation, and the continuation's tokens are those of the whole text beyond the number of the context's
        tokens. Raises RequestFailed for a continuation without tokens.
        """
        contexts: list[tuple[str, bool]] = []
        wholes: list[tuple[str, bool]] = []
        for request in requests:
            text = self.render(request)
            context = text.rstrip()
            plain = request.messages is None
            contexts.append((context, plain and bool(text) and not context.startswith(self.prefix_text)))
            whole = text + (request.continuation or "")
            wholes.append((whole, plain and bool(text) and not whole.startswith(self.prefix_text)))
        distinct = list(dict.fromkeys(contexts))
        encoded = dict(zip(distinct, self._encode([t for t, _ in distinct], [s for _, s in distinct]), strict=True))
        whole_ids = self._encode([t for t, _ in wholes], [s for _, s in wholes])
        for request, ids in zip(requests, whole_ids, strict=True):
            self._check(request, ids)
        return [
            self._split(request, encoded[context], whole)
            for request, context, whole in zip(requests, contexts, whole_ids, strict=True)
        ]

    def _split(self, request: Request, context: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
        continuation = whole[len(context) :]
        if whole and not continuation:
            # The continuation merged with the context's last token: score from the first token that differs.
            common = next((i for i, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(whole))
            context, continuation = whole[:common], whole[common:]
        if not context and continuation[:1] == [self.prefix_id]:
            context, continuation = continuation[:1], continuation[1:]
        if not continuation:
            raise RequestFailed(
                f"{request.task}: choice {request.index} of document {request.doc_id} has no tokens to score; "
                "leave the task out"
            )
        return context or [self.prefix_id], continuation

    def _encode(self, texts: Sequence[str], special: Sequence[bool]) -> list[list[int]]:
        """Encode texts, with one call of the tokenizer with special tokens and one without."""
        encoded: list[list[int]] = [[] for _ in texts]
        for add in (False, True):
            chosen = [i for i, flag in enumerate(special) if flag is add]
            if chosen:
                output = self.tokenizer([texts[i] for i in chosen], add_special_tokens=add, return_attention_mask=False)
                for i, ids in zip(chosen, output["input_ids"], strict=True):
                    encoded[i] = list(ids)
        return encoded
