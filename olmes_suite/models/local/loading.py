"""Loading a model and its tokenizer with transformers; whatever goes wrong becomes one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers

from olmes_suite.devices import has_gpu
from olmes_suite.errors import ModelError, UsageError, first_line
from olmes_suite.models.local.batch_size import out_of_memory
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip
UNKNOWN_LENGTH = 2048
"""Context length where neither the configuration nor the tokenizer names one, as in lm-eval."""
POSITIONS = re.compile(r"pos|wpe")
"""In the name of a table of positions."""
NO_LENGTH = 10**9
"""A tokenizer without a limit says 10^30."""


def pick_device(device: str | None) -> torch.device:
    """The device of that name; a GPU, where there is one, without a name. Raises UsageError."""
    if device is None:
        return torch.device("cuda" if has_gpu() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: there is no such device; use cpu, cuda or cuda:0") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use"
        )
    if found.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=found).tolist()
        except Exception:  # torch raises half a dozen types; `meta` holds no numbers
            raise UsageError(
                f"--device {device}: torch cannot compute there on this machine; use cpu, cuda or cuda:0"
            ) from None
    return found


def pick_dtype(dtype: str | None, device: torch.device) -> torch.dtype | str:
    """The dtype of that name; `auto` is the checkpoint's; bfloat16 on a GPU and float32 elsewhere without a name."""
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: use one of auto, {', '.join(DTYPES)}")
    return DTYPES.get(dtype, "auto")


def read_template(file: str | Path | None) -> str | None:
    """The text of a chat template file. Raises UsageError."""
    if file is None:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--chat-template {file}: cannot be read ({error}); give a Jinja file") from None
    if not text.strip():
        raise UsageError(f"--chat-template {file}: is empty; give a Jinja file")
    return text


def load_tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer of a folder or Hub id. Raises ModelError."""
    quiet: Any = transformers.logging  # untyped
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    if is_hub_id(model):
        _check_hub(model, revision)
    else:
        check_folder(model)
    try:
        return transformers.AutoTokenizer.from_pretrained(_place(model), revision=revision or "main")
    except Exception as error:  # transformers, tokenizers and the Hub client raise dozens of types here
        raise ModelError(f"{model}: its tokenizer cannot be loaded: {first_line(error)}") from None


def load_model(model: str, revision: str | None, dtype: torch.dtype | str, device: torch.device) -> Any:
    """The causal language model of a folder or Hub id, on its device and in evaluation mode. Raises ModelError."""
    try:
        auto: Any = transformers.AutoModelForCausalLM  # typed as if it gave no loading info
        loaded, info = auto.from_pretrained(
            _place(model), revision=revision or "main", dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # as above, and safetensors' own
        if out_of_memory(error):
            raise ModelError(f"{model}: does not fit in memory; use a larger machine or a smaller dtype") from None
        raise ModelError(f"{model}: cannot be loaded: {first_line(error)}") from None
    for kind, what in (("missing_keys", "lack"), ("mismatched_keys", "have the wrong shape for")):
        # transformers fills such tensors with random numbers and goes on
        if found := sorted(str(key) for key in info.get(kind, ())):
            raise ModelError(
                f"{model}: its weight files {what} {len(found)} of the model's tensors ({found[0]}); copy it again"
            )
    try:
        return loaded.to(device).eval()
    except RuntimeError as error:  # torch.OutOfMemoryError, or a plain one where not even CUDA's context fits
        if not out_of_memory(error):
            raise
        raise ModelError(f"{model}: {no_room(device)}") from None


def no_room(device: torch.device) -> str:
    """What to say when a model does not fit on a device: often another run is there already."""
    try:
        free, whole = (size / 1024**3 for size in torch.cuda.mem_get_info(device))
    except (RuntimeError, ValueError, AssertionError):  # no CUDA, or no room to ask
        return f"does not fit on {device}; use a larger device or a smaller dtype"
    told = f"does not fit on {device}: {free:.1f} of its {whole:.1f} GiB are free"
    if free < 0.8 * whole:
        return f"{told}; another process is on it: wait, or name another GPU (CUDA_VISIBLE_DEVICES)"
    return f"{told}; use a larger device or a smaller dtype"


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens that the model can take, from its configuration, else its tokenizer (the order is lm-eval's)."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := getattr(text, name, None)) is not None:
            return int(value)
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length is not None and 0 < length < NO_LENGTH else UNKNOWN_LENGTH


def learned_positions(model: Any) -> int | None:
    """Tokens for which a model has a table of positions; None where it computes them."""
    words = model.get_input_embeddings()
    sizes = [
        module.num_embeddings - int(getattr(module, "offset", (module.padding_idx or -1) + 1))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and module is not words and POSITIONS.search(name.split(".")[-1])
    ]
    sizes += [len(buffer) for name, buffer in model.named_buffers() if name.split(".")[-1] == "embed_positions"]
    return min(sizes, default=None)


def _place(model: str) -> str:
    return model if is_hub_id(model) else str(Path(model).expanduser())


def _check_hub(model: str, revision: str | None) -> None:
    """Raise ModelError for an id that is not in the local Hub cache and that the Hub does not give.

    transformers would say the same after half a minute of retries.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(try_to_load_from_cache(model, "config.json", revision=revision or "main"), str):
        return
    try:
        HfApi().model_info(model, revision=revision, timeout=10)
    except GatedRepoError:
        raise ModelError(f"{model}: is gated; accept its terms on the Hub and log in with `hf auth login`") from None
    except RevisionNotFoundError:
        raise ModelError(f"{model}: has no revision {revision!r} on the Hugging Face Hub") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{model}: is neither a folder nor a model on the Hugging Face Hub; check the name, or log in"
        ) from None
    except HfHubHTTPError as error:
        raise ModelError(f"{model}: the Hugging Face Hub refuses it: {first_line(error)}") from None
    except Exception:  # no network, a proxy, offline mode: the client has a type for each
        raise ModelError(
            f"{model}: is not a folder, and the Hugging Face Hub cannot be reached; give a local folder or connect"
        ) from None
