"""Checkpoints of a stage: lineage, adapters, resuming, evaluation, gate and gains."""
