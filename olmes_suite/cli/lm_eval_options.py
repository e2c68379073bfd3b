"""Options of lm-eval's command line, and what takes their place in `olmes eval`."""

from __future__ import annotations

INSTEAD = {
    "--num_fewshot": "each task has its own number of examples; a task file of your own sets num_fewshot",
    "--fewshot_as_multiturn": "each task renders its own examples; leave it out",
    "--fewshot_seed": "the examples of a task are fixed; leave it out",
    "--batch_size": "it is --batch-size N here; without it 8, or 32 on a GPU, and less where memory runs out",
    "--max_batch_size": "leave it out: batches shrink where memory runs out",
    "--output_path": "runs are recorded in --runs DIR (./runs); `olmes export RUN --to lm-eval` writes its files",
    "--log_samples": "leave it out: responses are always recorded; `olmes show RUN TASK --wrong 10` prints some",
    "--apply_chat_template": "leave it out: a chat template is always applied; --chat-template FILE replaces it",
    "--system_instruction": "it is --system TEXT here",
    "--gen_kwargs": "it is --gen-kwargs NAME=VALUE,… here",
    "--include_path": "it is --include-path DIR here",
    "--use_cache": "it is --cache DIR here; an unfinished run continues by itself",
    "--cache_requests": "leave it out: requests are built quickly",
    "--predict_only": "leave it out; `olmes score RUN` scores recorded responses again",
    "--write_out": "`olmes prompts --task TASK --text` prints the prompts",
    "--show_config": "`olmes tasks show TASK` prints a task's settings",
    "--check_integrity": "`olmes tasks check TASK` checks a task",
    "--confirm_run_unsafe_code": "leave it out: programs run in a sandbox (`olmes doctor`)",
    "--trust_remote_code": "code of a checkpoint or a data set is not run; leave it out",
    "--hf_hub_log_args": "`olmes export RUN --to hub` writes the metadata of a model card",
    "--wandb_args": "it is --report-to wandb here",
    "--wandb_config_args": "it is --report-to wandb here",
    "--verbosity": "leave it out; notes are printed to standard error",
    "--model_name_or_path": "it is --model CHECKPOINT here",
}
"""Option to what to do here."""


def instead(option: str) -> str | None:
    """Return the line for an option of lm-eval that `olmes eval` does not have; None for another option."""
    name = option.partition("=")[0].replace("-", "_").replace("__", "--", 1)
    hint = INSTEAD.get(name)
    return None if hint is None else f"{option.partition('=')[0]} is an option of lm-eval: {hint}"
