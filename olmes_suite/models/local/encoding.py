"""From requests to token ids: chat template, special tokens, the boundary between context and continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from olmes_suite.errors import ModelError, RequestFailed, first_line
from olmes_suite.records import Request

PROBE = [{"role": "user", "content": "Hello"}]


class Encoder:
    """A tokenizer with a chat template, as the transformers backends use it.

    A rendered chat gets no special tokens beside the template's own (as in OLMES). Plain text gets those that the
    tokenizer adds by itself, unless it starts with the BOS token already: the rule of lm-eval's `hf` model.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
        self.tokenizer = tokenizer
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        self.chat = bool(tokenizer.chat_template)
        self.double_bos = False
        self.system_dropped = False
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prefix_id: int = next((token for token in (bos, eos, tokenizer.pad_token_id) if token is not None), 0)
        self.prefix_text: str = tokenizer.decode([self.prefix_id])
        if self.chat:
            self._probe()

    def _probe(self) -> None:
        """Render one message, so that a broken template fails before the run. Raises ModelError."""
        try:
            text = self._apply(PROBE)
        except Exception as error:  # a template is a program of its own: anything can go wrong in it
            raise ModelError(
                f"the chat template cannot be rendered ({first_line(error)}); give another with --chat-template FILE"
            ) from None
        bos = self.tokenizer.bos_token
        adds_bos = bos is not None and self.tokenizer.encode("a")[:1] == [self.tokenizer.bos_token_id]
        self.double_bos = adds_bos and text.startswith(bos)

    def _apply(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def notes(self, name: str) -> list[str]:
        """Lines for the user about the chat template and the BOS token of the model of that name."""
        lines = []
        if not self.chat:
            lines.append(f"{name} has no chat template: plain text is used (--chat-template FILE gives it one)")
        if self.double_bos:
            lines.append(f"{name}: the chat template writes the BOS token itself; the tokenizer's own is left out")
        if self.system_dropped:
            lines.append(f"{name}: the chat template takes no system message; system messages were left out")
        return lines

    def render(self, request: Request) -> str:
        """The text that the model continues. Raises RequestFailed where the chat template refuses the messages."""
        if request.messages is None:
            return (request.text or "") + request.prefix
        if not self.chat:
            raise RequestFailed(
                f"{request.task}: asks in chat messages and the model has no chat template; give --chat-template FILE"
            )
        try:
            return self._continued(request) + request.prefix
        except Exception as error:  # a template is a program of its own: anything can go wrong in it
            raise RequestFailed(
                f"{request.task}: the chat template refuses document {request.doc_id} ({first_line(error)})"
            ) from None

    def _continued(self, request: Request) -> str:
        """The rendered messages; without those of the system where the template takes none, as in lm-eval's hf."""
        try:
            return self._apply(request.chat)
        except TemplateError:
            rest = [message for message in request.chat if message["role"] != "system"]
            if len(rest) == len(request.chat):
                raise
            text = self._apply(rest)
            self.system_dropped = True  # the notes say so
            return text

    def prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids of the prompts of generation requests."""
        texts = [self.render(request) for request in requests]
        bos = self.tokenizer.bos_token
        plain = [request.messages is None for request in requests]
        return self._encode(
            texts,
            [is_plain and not (bos and text.startswith(bos)) for text, is_plain in zip(texts, plain, strict=True)],
        )

    def pairs(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """Token ids (context, continuation) of log-likelihood requests; both are non-empty.

        The boundary is lm-eval's (`TemplateLM._encode_pair`): the context's trailing white space belongs to the
        continuation, whose tokens are those of the whole beyond as many as the context alone has. Raises RequestFailed
        for a continuation without tokens.
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
        return [
            self._split(request, encoded[context], whole)
            for request, context, whole in zip(requests, contexts, whole_ids, strict=True)
        ]

    def _split(self, request: Request, context: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
        continuation = whole[len(context) :]
        if whole and not continuation:
            # The continuation melted into the context's last token: score from where the two differ.
            common = next((i for i, (a, b) in enumerate(zip(context, whole, strict=False)) if a != b), len(whole))
            context, continuation = whole[:common], whole[common:]
        if not context and continuation[:1] == [self.prefix_id]:
            context, continuation = continuation[:1], continuation[1:]
        if not continuation:
            raise RequestFailed(
                f"{request.task}: choice {request.index} of document {request.doc_id} has no tokens to score"
            )
        return context or [self.prefix_id], continuation

    def _encode(self, texts: Sequence[str], special: Sequence[bool]) -> list[list[int]]:
        """Token ids of many texts, in one call of the tokenizer for each of the two ways."""
        out: list[list[int]] = [[] for _ in texts]
        for way in (False, True):
            chosen = [i for i, flag in enumerate(special) if flag is way]
            if chosen:
                found = self.tokenizer([texts[i] for i in chosen], add_special_tokens=way, return_attention_mask=False)
                for i, ids in zip(chosen, found["input_ids"], strict=True):
                    out[i] = list(ids)
        return out
