"""Public helpers for the scoring functions that live beside each task, shipped or a user's own.

Light: only the standard library. The scorers' tools, language resources and multiple-choice forms are modules beside.
"""

from olmes_suite.scoring.scorers import (
    DeferredFunction,
    DeferredScorer,
    Doc,
    Item,
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
    sandboxed,
    scorer,
)

__all__ = [
    "DeferredFunction",
    "DeferredScorer",
    "Doc",
    "Item",
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
    "sandboxed",
    "scorer",
]
