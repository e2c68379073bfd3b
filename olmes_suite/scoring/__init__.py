"""Public helpers for the scoring functions of tasks, shipped with the package or written by users.

These helpers import only the standard library. Tools, language resources and multiple-choice forms are submodules.
"""

from olmes_suite.scoring.scorers import (
    DeferredFunction,
    DeferredScorer,
    Doc,
    Item,
    SampledScorer,
    SandboxedFunction,
    SandboxedScorer,
    ScoreFunction,
    Scorer,
    deferred,
    exact_match,
    last_match,
    lm_eval_config,
    lm_eval_module,
    lm_eval_task_file,
    module_beside,
    pass_at,
    sampled,
    sandboxed,
    scorer,
)

__all__ = [
    "DeferredFunction",
    "DeferredScorer",
    "Doc",
    "Item",
    "SampledScorer",
    "SandboxedFunction",
    "SandboxedScorer",
    "ScoreFunction",
    "Scorer",
    "deferred",
    "exact_match",
    "last_match",
    "lm_eval_config",
    "lm_eval_module",
    "lm_eval_task_file",
    "module_beside",
    "pass_at",
    "sampled",
    "sandboxed",
    "scorer",
]
