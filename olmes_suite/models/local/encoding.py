"""Encoding of requests as token ids: chat template, special tokens, boundary between context and continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from jinja2.exceptions import TemplateError

from olmes_suite.errors import ModelError, RequestFailed, first_line
from olmes_suite.records import Request

PROBE = [{"role": "user", "content": "Hello"}]


class Tokenizer(Protocol):
    """The part of transformers' tokenizers that the engines use."""

    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def __call__(
        self, text: list[str], *, add_special_tokens: bool = True, return_attention_mask: bool | None = None
    ) -> Mapping[str, list[list[int]]]:
        """Encode texts; `input_ids` holds their token ids."""

    def encode(self, text: str) -> list[int]:
        """Encode one text with special tokens."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Decode token ids."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool = True, add_generation_prompt: bool = False
    ) -> str | list[int]:
        """Render messages as text, or as token ids."""


class Encoder:
    """A tokenizer with a chat template, as the transformers backends use it.

    A rendered chat gets only the special tokens of the template (as in OLMES). Plain text gets the special tokens that
    the tokenizer adds, unless it already starts with the BOS token: the rule of lm-eval's `hf` model.
    """

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None = None) -> None:
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
        except Exception as error:  # a template is a program, which may raise anything
            raise ModelError(
                f"the chat template cannot be rendered ({first_line(error)}); give another with --chat-template FILE"
            ) from None
        bos = self.tokenizer.bos_token
        if bos is not None and self.tokenizer.encode("a")[:1] == [self.tokenizer.bos_token_id]:
            self.double_bos = text.startswith(bos)

    def _apply(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def notes(self, name: str) -> list[str]:
        """Return lines for the user about the chat template and the BOS token of the model `name`."""
        lines = []
        if not self.chat:
            lines.append(f"{name} has no chat template: plain text is used (set one with --chat-template FILE)")
        if self.double_bos:
            lines.append(f"{name}: the chat template writes the BOS token; the tokenizer does not add another one")
        if self.system_dropped:
            lines.append(f"{name}: the chat template does not take system messages; they were left out")
        return lines

    def render(self, request: Request) -> str:
        """Return the text that the model continues. Raises RequestFailed where the chat template refuses it."""
        if request.messages is None:
            return (request.text or "") + request.prefix
        if not self.chat:
            raise RequestFailed(
                f"{request.task}: its prompts are chat messages and the model has no chat template; "
                "give --chat-template FILE"
            )
        try:
            return self._rendered_chat(request) + request.prefix
        except Exception as error:  # a template is a program, which may raise anything
            raise RequestFailed(
                f"{request.task}: the chat template refuses document {request.doc_id} ({first_line(error)})"
            ) from None

    def _rendered_chat(self, request: Request) -> str:
        """Render the messages, without system messages where the template refuses them, as lm-eval's hf does."""
        try:
            return self._apply(request.chat)
        except TemplateError:
            rest = [message for message in request.chat if message["role"] != "system"]
            if len(rest) == len(request.chat):
                raise
            text = self._apply(rest)
            self.system_dropped = True  # reported by `notes`
            return text

    def prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the token ids of the prompts of generation requests."""
        texts = [self.render(request) for request in requests]
        bos = self.tokenizer.bos_token
        plain = [request.messages is None for request in requests]
        return self._encode(
            texts,
            [is_plain and not (bos and text.startswith(bos)) for text, is_plain in zip(texts, plain, strict=True)],
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
