"""Loading of a model and its tokenizer with transformers, with errors in one line."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from olmes_suite.devices import has_gpu
from olmes_suite.errors import ModelError, UsageError, first_line, one_line
from olmes_suite.models.local.adapter import Adapter, adapter_of
from olmes_suite.models.local.batch_size import out_of_memory
from olmes_suite.models.local.checkpoint import (
    check_folder,
    check_name,
    check_tokenizer,
    has_tokenizer,
    is_hub_id,
    read_json,
    tensor_shapes,
)
from olmes_suite.models.local.forms import check_quantised, explain
from olmes_suite.models.local.tokenizer import Tokenizer

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip
UNKNOWN_LENGTH = 2048
"""The context length where neither the configuration nor the tokenizer has one, as in lm-eval."""
POSITIONS = re.compile(r"pos|wpe")
"""Matches the name of a table of positions."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
"""Ends of the names of input embeddings that an adapter's file may hold whole."""
NO_LENGTH = 10**9
"""A larger `model_max_length` is not a limit: tokenizers without one have 10^30."""


def pick_device(device: str | None) -> torch.device:
    """Return the device of this name; without a name a GPU where there is one. Raises UsageError."""
    if device is None:
        return torch.device("cuda" if has_gpu() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: unknown device; use cpu, cuda or cuda:0") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: torch can use {torch.cuda.device_count()} CUDA devices on this machine; "
            "name one of them, or cpu"
        )
    if chosen.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=chosen).tolist()
        except Exception:  # torch raises many types; the device `meta` has no data
            raise UsageError(
                f"--device {device}: torch cannot compute there on this machine; use cpu, cuda or cuda:0"
            ) from None
    return chosen


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype | str:
    """Return the dtype of this name, `auto` for the checkpoint's; without a name bfloat16 on a GPU, else float32.

    Raises UsageError for an unknown name.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: use one of auto, {', '.join(DTYPES)}")
    return DTYPES.get(dtype, "auto")


def read_template(file: str | Path | None) -> str | None:
    """Return the text of a chat template file. Raises UsageError."""
    if file is None:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--chat-template {file}: cannot be read ({error}); give a Jinja file") from None
    if not text.strip():
        raise UsageError(f"--chat-template {file}: is empty; give a Jinja file")
    return text


def load_tokenizer(model: str, revision: str | None, *, weights: bool = True, training: bool = False) -> Any:
    """Load the tokenizer of a folder or Hub id. Raises ModelError.

    Without `weights`, the folder need not hold more than the tokenizer; `training` refuses adapters.
    """
    quiet: Any = transformers.logging  # untyped
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    model, revision = _tokenizer_place(model, revision, weights=weights, training=training)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            _path(model), revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:  # transformers, tokenizers and the Hub client raise dozens of types here
        raise explain(model, error, "tokenizer") from None


def _tokenizer_place(model: str, revision: str | None, *, weights: bool, training: bool) -> tuple[str, str | None]:
    """Check a model's files and return the (folder or Hub id, revision) of its tokenizer: an adapter may have none."""
    if is_hub_id(model):
        check_name(model, revision)
        _check_hub(model, revision)
        return model, revision
    if revision is not None:
        raise UsageError(f"--revision {revision}: {model} is a folder, which has no revisions; leave it out")
    adapter = adapter_of(model)
    if weights or adapter is not None:
        check_folder(model, training=training)
    else:
        check_tokenizer(model)
    if adapter is None:
        return model, revision
    if is_hub_id(adapter.base):
        try:
            _check_hub(adapter.base, adapter.revision)
        except ModelError as error:
            raise ModelError(f"{model}: the base model of the adapter: {error}") from None
    return (model, revision) if has_tokenizer(adapter.folder) else (adapter.base, adapter.revision)


def load_model(model: str, revision: str | None, dtype: torch.dtype | str, device: torch.device) -> Any:
    """Load the causal language model of a folder or Hub id on a device, in evaluation mode. Raises ModelError.

    An adapter is merged into its base model, in memory. The model's attribute `unused_tensors` names tensors of the
    weight files that it does not use.
    """
    adapter = adapter_of(model)
    base, revision = (adapter.base, adapter.revision) if adapter else (model, revision)
    if not is_hub_id(base):
        check_quantised(model, read_json(Path(base).expanduser() / "config.json"))
    try:
        auto: Any = transformers.AutoModelForCausalLM  # its types lack the loading info
        loaded, info = auto.from_pretrained(
            _path(base), revision=revision or "main", dtype=dtype, output_loading_info=True, trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # as above, and safetensors' types
        if out_of_memory(error):
            raise ModelError(f"{model}: does not fit in memory; use a larger machine or a smaller dtype") from None
        raise _generation_error(base, revision) or explain(model, error, "") from None
    if (lacking := set(info.get("missing_keys", ()))) and lacking <= {"lm_head.weight", "embed_out.weight"}:
        raise ModelError(
            f"{model}: was saved without the head of a language model ({min(lacking)}); give a causal language model"
        )
    if keys := sorted(map(str, info.get("missing_keys", ()))):  # transformers fills such tensors with random numbers
        raise ModelError(
            f"{model}: its weight files lack {len(keys)} of the model's tensors ({keys[0]}); copy it again"
        )
    if shapes := sorted(info.get("mismatched_keys", ())):
        name, found, wanted = shapes[0]
        raise ModelError(
            f"{model}: its weight files have the wrong shape for {len(shapes)} of the model's tensors ({name}: "
            f"{list(found)} for {list(wanted)}); copy weights and config.json from one checkpoint"
        )
    unused = sorted(map(str, info.get("unexpected_keys", ())))
    if adapter is not None:
        loaded = _merged(loaded, adapter)
    cap_attention(loaded)
    try:
        ready = loaded.to(device).eval()
        ready.unused_tensors = unused
        return ready
    except RuntimeError as error:  # torch.OutOfMemoryError, or the plain type where CUDA's context does not fit
        if not out_of_memory(error):
            raise
        raise ModelError(f"{model}: {does_not_fit(device)}") from None


def _generation_error(base: str, revision: str | None) -> ModelError | None:
    """Return the error for a generation_config that transformers refuses, and with it the model."""
    try:
        transformers.GenerationConfig.from_pretrained(_path(base), revision=revision or "main")
    except OSError:  # there is none
        return None
    except Exception as error:  # transformers checks fields against each other
        return ModelError(
            f"{base}: its generation_config.json is invalid: {one_line(error)}; correct it, or remove the file"
        )
    return None


def _merged(model: Any, adapter: Adapter) -> Any:
    """Merge an adapter into its base model. Raises ModelError where its tensors do not belong to the model."""
    from peft import PeftModel

    shapes = tensor_shapes(adapter.weights) if adapter.weights.suffix == ".safetensors" else {}
    rows = [shape[0] for name, shape in shapes.items() if name.endswith(EMBEDDINGS)]
    if rows and rows[0] != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows[0], mean_resizing=False)  # tokens were added in the training
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tuned: Any = PeftModel.from_pretrained(model, str(adapter.folder))
        if lost := [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]:
            raise ModelError(f"{adapter.folder}: lacks tensors of the adapter ({lost[0][:150]}…); copy it again")
        return tuned.merge_and_unload(safe_merge=True)
    except ModelError:
        raise
    except Exception as error:  # PEFT and torch have dozens of types: another base model, an unknown kind, NaN
        raise ModelError(
            f"{adapter.folder}: cannot be merged into {adapter.base} ({one_line(error)}); check adapter_config.json, "
            f"and that this is the adapter's base model"
        ) from None


def unused_note(model: Any, name: str) -> list[str]:
    """Return a line about tensors of the weight files that a model does not use, as with too few layers."""
    unused = getattr(model, "unused_tensors", [])
    if not unused:
        return []
    count = "1 tensor" if len(unused) == 1 else f"{len(unused)} tensors"
    return [f"{name}: its weight files hold {count} that the model does not use ({unused[0]}); check its config.json"]


def cap_attention(model: Any) -> None:
    """Let a model with capped attention logits (Gemma 2) use an implementation that caps them.

    Before 5.21, transformers chose torch's `sdpa` for it, which leaves the cap out, and gave other logits.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "attn_logit_softcapping", None) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def does_not_fit(device: torch.device) -> str:
    """Return the message for a model that does not fit on a device, which another process often uses."""
    try:
        free, total = (size / 1024**3 for size in torch.cuda.mem_get_info(device))
    except (RuntimeError, ValueError, AssertionError):  # no CUDA, or too little memory to query it
        return f"does not fit on {device}; use a larger device or a smaller dtype"
    message = f"does not fit on {device}: {free:.1f} of its {total:.1f} GiB are free"
    if free < 0.8 * total:
        return f"{message}; another process is on it: wait, or name another GPU (CUDA_VISIBLE_DEVICES)"
    return f"{message}; use a larger device or a smaller dtype"


def context_length(config: transformers.PretrainedConfig, tokenizer: Tokenizer) -> int:
    """Return the context length in tokens from the configuration, else from the tokenizer, in lm-eval's order."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := getattr(text, name, None)) is not None:
            return int(value)
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length is not None and 0 < length < NO_LENGTH else UNKNOWN_LENGTH


def context_of(model: str, revision: str | None, tokenizer: Tokenizer) -> int:
    """Return the context length of a folder or Hub id, from the tokenizer alone where there is no configuration."""
    auto: Any = transformers.AutoConfig
    try:
        adapter = adapter_of(model)
        model, revision = (adapter.base, adapter.revision) if adapter else (model, revision)
        config = auto.from_pretrained(_path(model), revision=revision or "main", trust_remote_code=False)
    except Exception:  # as in load_tokenizer: a folder with a tokenizer alone, or code of the checkpoint's own
        config = transformers.PretrainedConfig()
    return context_length(config, tokenizer)


def learned_positions(model: transformers.PreTrainedModel) -> int | None:
    """Return the number of positions in a model's table; None for a model that computes positions."""
    words = model.get_input_embeddings()
    sizes = [
        module.num_embeddings - int(getattr(module, "offset", (module.padding_idx or -1) + 1))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and module is not words and POSITIONS.search(name.split(".")[-1])
    ]
    sizes += [len(buffer) for name, buffer in model.named_buffers() if name.split(".")[-1] == "embed_positions"]
    return min(sizes, default=None)


def _path(model: str) -> str:
    return model if is_hub_id(model) else str(Path(model).expanduser())


def _check_hub(model: str, revision: str | None) -> None:
    """Raise ModelError for an id that is neither in the local Hub cache nor available on the Hub.

    transformers would raise the same only after half a minute of retries.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(try_to_load_from_cache(model, "config.json", revision=revision or "main"), str):
        return
    try:
        HfApi().model_info(model, revision=revision, timeout=10)
    except GatedRepoError:
        raise ModelError(
            f"{model}: access is gated; accept its terms on the Hub and log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"{model}: has no revision {revision!r} on the Hugging Face Hub; check --revision") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{model}: is neither a folder nor a model on the Hugging Face Hub; check the name, or log in"
        ) from None
    except HfHubHTTPError as error:
        raise ModelError(f"{model}: the Hugging Face Hub refuses it: {first_line(error)}") from None
    except OfflineModeIsEnabled:
        raise ModelError(
            f"{model}: is neither a folder nor in the Hub cache, and $HF_HUB_OFFLINE is set; unset it, or give a local "
            "folder"
        ) from None
    except Exception:  # no network or a proxy, each with its own type
        raise ModelError(
            f"{model}: is not a folder, and the Hugging Face Hub cannot be reached; give a local folder or connect"
        ) from None
