"""The engine for Hugging Face transformers, on CPU or GPU."""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteriaList

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.base import Backend, Sent
from olmes_suite.models.hf.decoding import Choosing, RowPenalties, RowPenalty, RowSampler, RowStop, RowStopper, RowWatch
from olmes_suite.models.hf.generation import Decoder, Task
from olmes_suite.models.hf.padding import respects_mask
from olmes_suite.models.hf.prefix_tree import by_prefix, prefixes, release
from olmes_suite.models.hf.ranking import Ranked, batches, score
from olmes_suite.models.hf.reuse import SharedModel
from olmes_suite.models.local.batch_size import Budget, unless_out_of_memory
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.fingerprint import ModelFingerprint, fingerprint_of
from olmes_suite.models.local.generation_config import Own, written
from olmes_suite.models.local.jobs import (
    Choice,
    Ends,
    Generation,
    Row,
    choices,
    generations,
    not_a_number,
    open_samples,
    rows_of,
)
from olmes_suite.models.local.loading import (
    context_length,
    learned_positions,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
    read_template,
    unused_note,
)
from olmes_suite.models.local.rendering import each_sent
from olmes_suite.records import OPTIONAL, Request, Response, sha256

Job = TypeVar("Job", bound="Generation | Row")
Answered = tuple[int, int, Response]
LEAST_TOKENS, LEAST_ROWS = 32, 4
"""The smallest number of tokens, and of prompts with them, of a prefix that is computed once."""


class HFBackend(Backend):
    """A causal language model run by transformers, with the answers of lm-eval's `hf` model in every row.

    `model` is a folder or a Hub id. By default `dtype` is float32 on a CPU and bfloat16 on a GPU, `batch_size` (the
    largest number of rows) 32 and 128, and `max_length` (tokens of prompt and answer together) the model's.
    `chat_template` is a Jinja file that replaces the tokenizer's template; `chat_template_args` are its arguments.
    `seed` seeds torch; each sample has its own
    seed. Shared prefixes of prompts are computed once, unless the model's architecture does not allow it or `reuse` is
    False: `batch_size` is then 8 and 32 by default. `thinking`, `unclosed` and `prefill` are as on the command line.
    Raises ModelError where the model cannot be loaded, UsageError for an invalid device, dtype or template file, and
    for a context longer than the model's table of positions.
    """

    name = "hf"
    fields = frozenset(OPTIONAL)

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        chat_template: str | Path | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        revision: str | None = None,
        seed: int = 0,
        reuse: bool = True,
        thinking: object = None,
        unclosed: str | None = None,
        prefill: str | None = None,
    ) -> None:
        super().__init__()
        self.source = str(model)
        self.revision = revision
        self.template = read_template(chat_template)
        self._device = pick_device(device)  # the property `device` of lm-eval's LM
        self.dtype = pick_dtype(dtype, self._device)
        torch.manual_seed(seed)
        self.encoder = Encoder(
            load_tokenizer(self.source, revision), self.template, chat_template_args, thinking=thinking,
            unclosed=unclosed, prefill=prefill,
        )  # fmt: skip
        self.tokenizer = self.encoder.tokenizer
        self.model = load_model(self.source, revision, self.dtype, self.device)
        self.encoder.check_ids(self.model.get_input_embeddings().num_embeddings, self.source)
        self.chat = self.encoder.chat
        self.unused_arguments = self.encoder.unused_arguments()
        self.max_length: int = max_length or context_length(self.model.config, self.tokenizer)
        if self.max_length < 2:
            raise ModelError(f"{self.source}: its config.json gives a context of {self.max_length} tokens; correct it")
        limit = learned_positions(self.model)
        if limit is not None and self.max_length > limit:
            raise UsageError(
                f"--max-length {self.max_length}: {self.source} has positions for {limit} tokens only; lower it"
            )
        self.own = Own.of(self.model.generation_config, written(self.source, revision))
        self.ends = Ends.of(self.encoder, self.model.generation_config.eos_token_id, self.own.stops)
        self.repetition = self.own.penalty
        self.model.generation_config = transformers.GenerationConfig()  # of short rows, in the checks below
        shared = SharedModel(self.model, self.device)
        self.why_plain = shared.why_not() if reuse else "reuse is switched off"
        self.shared = shared if self.why_plain is None else None
        self.processed = next(iter(self.own.processed), None)
        padded = self.shared is None or self.processed is not None
        self.one_by_one = padded and not respects_mask(self.model, self.device)
        rows = (32, 128) if self.shared else (8, 32)
        on_gpu = self.device.type != "cpu"
        self.budget = Budget(1 if self.one_by_one else batch_size or rows[on_gpu], (4096, 16384)[on_gpu])
        self.model.generation_config = self.own.clean()
        self.at_once = self.budget.rows
        self.keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self._pieces: dict[int, str] = {}
        self._fingerprint: ModelFingerprint | None = None

    @property
    def tokenizer_name(self) -> str:
        """The model's path or Hub id, as the tokenizer's part of lm-eval's cache keys."""
        return self.source

    @property
    def identity(self) -> ModelFingerprint:
        """The fingerprint with the hashes of its files. The weights are hashed on first use."""
        if self._fingerprint is None:
            settings: dict[str, Any] = {"dtype": str(self.model.dtype), "max_length": self.max_length}
            settings |= self.encoder.settings() | self.ends.settings(self.tokenizer)
            self._fingerprint = fingerprint_of(
                self.source, revision=self.revision, chat_template=self.template, settings=settings
            )
        return self._fingerprint

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of checkpoint, chat template, dtype and context length."""
        return self.identity.digest

    def settings(self) -> dict[str, Any]:
        """Return device, dtype, batch size, context length and versions."""
        template = self.tokenizer.chat_template
        return {
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "batch_size": self.budget.rows,
            "reuse": self.why_plain or "prefixes",
            "max_length": self.max_length,
            "attention": self.model.config._attn_implementation,
            "chat_template": sha256(str(template)) if template else None,
            "commit": self._fingerprint.commit if self._fingerprint else None,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        } | self.encoder.thinking()

    def notes(self) -> list[str]:
        """Return lines about the reuse of prefixes, the batch size, the chat template and the BOS token."""
        lines = []
        if self.shared is None:
            lines.append(f"{self.source}: shared prefixes of prompts are not reused: {self.why_plain}")
        elif self.processed:
            lines.append(
                f"{self.source}: its generation_config sets {self.processed}: transformers generates the answers, and "
                "shared prefixes of prompts are not reused"
            )
        if self.one_by_one:
            lines.append(f"{self.source}: the padding of shorter prompts changes answers: the batch size is 1")
        return [
            *lines,
            *self.encoder.notes(self.source),
            *self.ends.notes(self.tokenizer, self.source),
            *self.own.notes(self.source),
            *unused_note(self.model, self.source),
        ]

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return the rendered texts and the numbers of their token ids."""
        return each_sent(self.encoder, requests, self.max_length)

    def close(self) -> None:
        """Free the weights, also on the device."""
        self.model = self.shared = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Yield answers, each as soon as its batch is done."""
        samples = open_samples(seeds)
        generate = [sample for sample in samples if requests[sample[0]].kind == "generate"]
        ranking = [sample for sample in samples if requests[sample[0]].kind == "loglikelihood"]
        if generate:
            jobs = generations(self.encoder, requests, generate, self.max_length)
            plain = self.shared is None or self.processed is not None
            yield from self._in_batches(jobs, self._generate) if plain else self._decoded(jobs)
        if ranking and not self.stop_requested:
            ranked = choices(self.encoder, requests, ranking, self.max_length)
            plain = self.shared is None
            yield from self._in_batches(rows_of(ranked), self._score) if plain else self._ranked(ranked)

    def _in_batches(self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], list[Answered]]) -> Iterator[Answered]:
        """Run the jobs in batches. Where memory runs out, halve the batch for the rest of the run."""
        start = 0
        while start < len(jobs):
            batch = jobs[start : start + self.budget.rows]
            answers = unless_out_of_memory(partial(work, batch))
            if answers is None:
                self._halve(len(batch))
                continue
            start += len(batch)
            yield from answers
            if self.stop_requested:
                return

    def _halve(self, failed: int) -> None:
        if self.shared is not None:
            self.shared.forget()
        if not self.budget.halve(failed, self.device):
            raise RequestFailed(
                f"{self.source}: out of memory with a single request; lower --max-length or use a larger device"
            )

    # generation ----------------------------------------------------------------------------------------------------

    def _stop(self, job: Generation) -> RowStop:
        return RowStop(self.tokenizer, self.ends.stops(job.request), job.budget, self.ends.ids, self._pieces)

    def _decoded(self, jobs: Sequence[Generation]) -> Iterator[Answered]:
        """Yield each answer as soon as it is done. Shared prefixes of prompts are computed once."""
        assert self.shared is not None
        prompts = [job.prompt for job in jobs]
        nodes = prefixes(prompts, tokens=LEAST_TOKENS, rows=LEAST_ROWS)
        tasks = [Task(jobs[i], nodes[i]) for i in by_prefix(prompts, nodes)]
        while tasks:
            width = max(len(task.prompt) + task.job.budget for task in tasks)
            rows = self.budget.rows_for(width, self.shared.token_bytes, self.device)
            decoder = Decoder(self.shared, tasks, self._stop, rows, self.budget.tokens, repetition=self.repetition)
            tasks = []
            while decoder.left:
                fits = unless_out_of_memory(decoder.advance)
                for job, stop in decoder.take_finished():
                    yield job.position, job.sample, self._response(job, stop)
                if fits is None:
                    tasks, rows_in_use = decoder.left, len(decoder.rows)
                    del decoder
                    self._halve(rows_in_use)
                    break
                if self.stop_requested:
                    decoder.waiting.clear()
            if self.stop_requested:
                return

    def _generate(self, batch: Sequence[Generation]) -> list[Answered]:
        width = max(len(job.prompt) for job in batch)
        pad = self._pad_id
        ids = torch.tensor([[pad] * (width - len(job.prompt)) + list(job.prompt) for job in batch], device=self.device)
        mask = torch.tensor(
            [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in batch], device=self.device
        )
        stops = [self._stop(job) for job in batch]
        choosings = [Choosing.of(job.request, self.repetition) for job in batch]
        watch = RowWatch()
        processors = LogitsProcessorList([watch])
        if any(how.penalised for how in choosings):
            rows = zip(choosings, batch, strict=True)
            processors.append(
                RowPenalty([RowPenalties(how, job.prompt) if how.penalised else None for how, job in rows], width)
            )
        if any(how.temperature for how in choosings):
            processors.append(RowSampler(choosings, [job.seed for job in batch], self.device))
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(job.budget for job in batch),
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                eos_token_id=list(self.ends.ids) or None,
                stopping_criteria=StoppingCriteriaList([RowStopper(stops, watch)]),
                logits_processor=processors,
                use_cache=True,
            )
        return [(job.position, job.sample, self._response(job, stop)) for job, stop in zip(batch, stops, strict=True)]

    def _response(self, job: Generation, stop: RowStop) -> Response:
        if stop.reason == "broken":
            raise not_a_number(job.request)
        found = job.response(stop.tokens, stop.reason or "length", self.tokenizer, self.ends, self.encoder.thoughts)
        return job.limited(found)

    @property
    def _pad_id(self) -> int:
        """The padding token: any id works, since padding is masked."""
        return next((token for token in (self.tokenizer.pad_token_id, *self.ends.ids) if token is not None), 0)

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Yield the likeliest first tokens of each answer. A prompt that is too long is cut on the left."""
        prompts = [
            (prompt or [self.encoder.prefix_id])[-self.max_length :] for prompt in self.encoder.prompts(requests)
        ]
        order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
        for start in range(0, len(order), self.budget.rows):
            batch = order[start : start + self.budget.rows]
            width = len(prompts[batch[0]])
            # Right padding without a mask is exact for a causal model.
            ids = [prompts[i] + [self._pad_id] * (width - len(prompts[i])) for i in batch]
            with torch.inference_mode():
                logits = self.model(input_ids=torch.tensor(ids, device=self.device), use_cache=False).logits
                last = torch.tensor([len(prompts[i]) - 1 for i in batch], device=logits.device)
                rows = logits[torch.arange(len(batch), device=logits.device), last].float().log_softmax(dim=-1)
                values, tokens = rows.topk(min(top, rows.shape[-1]), dim=-1)
            for position, top_ids, log_probs in zip(batch, tokens.tolist(), values.tolist(), strict=True):
                if not math.isfinite(log_probs[0]):
                    raise not_a_number(requests[position])
                texts = [self.tokenizer.decode([token]) for token in top_ids]
                yield position, list(zip(texts, log_probs, strict=True))

    # log-likelihood ------------------------------------------------------------------------------------------------

    def _ranked(self, ranked: Sequence[Choice]) -> Iterator[Answered]:
        """Yield the answers of choices. Contexts and their shared prefixes are computed once."""
        assert self.shared is not None
        by_context: dict[tuple[int, ...], list[Choice]] = {}
        for choice in ranked:
            by_context.setdefault(choice.context, []).append(choice)
        contexts = list(by_context)
        nodes = prefixes(contexts, tokens=LEAST_TOKENS, rows=LEAST_ROWS)
        order = by_prefix(contexts, nodes)
        rows = [
            Ranked(contexts[i], tuple(choice.tokens for choice in by_context[contexts[i]]), nodes[i]) for i in order
        ]
        finished = 0
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        while finished < len(rows) and not self.stop_requested:
            for batch in batches(rows[finished:], self.budget.rows, self.budget.tokens, vocabulary):
                scores = unless_out_of_memory(partial(self._ranks, batch))
                if scores is None:
                    self._halve(len(batch))
                    break
                finished += len(batch)
                for row, row_scores in zip(batch, scores, strict=True):
                    release(row.node)
                    for choice, (value, greedy) in zip(by_context[row.context], row_scores, strict=True):
                        yield choice.position, choice.sample, choice.response(value, greedy)
                if self.stop_requested:
                    return

    def _ranks(self, batch: Sequence[Ranked]) -> list[list[tuple[float, bool]]]:
        assert self.shared is not None
        with self.shared.active():
            return score(self.shared, batch)

    def _score(self, batch: Sequence[Row]) -> list[Answered]:
        length = max(len(row.inputs) for row in batch)
        # Right padding without a mask is exact for a causal model; lm-eval pads in the same way.
        ids = torch.tensor(
            [[*row.inputs, *[self._pad_id] * (length - len(row.inputs))] for row in batch], device=self.device
        )
        spans = [range(len(row.inputs) - row.width, len(row.inputs)) for row in batch]
        needed = sorted(set().union(*spans))
        column = {position: i for i, position in enumerate(needed)}
        index = torch.tensor(needed, device=self.device)
        answers: list[Answered] = []
        with torch.inference_mode():
            if self.keeps_logits:
                logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=index).logits
            else:
                logits = self.model(input_ids=ids, use_cache=False).logits[:, index]
            for i, (row, span) in enumerate(zip(batch, spans, strict=True)):
                log_probs = logits[i, [column[position] for position in span]].float().log_softmax(dim=-1)
                answers.extend((choice.position, choice.sample, _scored(choice, log_probs)) for choice in row.choices)
        return answers


def _scored(choice: Choice, log_probs: torch.Tensor) -> Response:
    """Return the response of a choice from the [positions, vocabulary] log-probabilities of its row."""
    last = log_probs[-len(choice.tokens) :]
    tokens = torch.tensor(choice.tokens, device=last.device)
    value = float(last.gather(1, tokens.unsqueeze(1)).sum())
    return choice.response(value, bool((last.argmax(dim=-1) == tokens).all()))
