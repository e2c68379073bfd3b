"""Verifiers, which judge responses on the evaluator's scorers, in processes that can be killed."""

from train_plugins.verifiers.base import Call, Malformed, VerifierFailed
from train_plugins.verifiers.pool import Verifiers
from train_plugins.verifiers.registry import names

__all__ = ["Call", "Malformed", "VerifierFailed", "Verifiers", "names"]
