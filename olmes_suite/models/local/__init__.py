"""Checkpoints on this machine: their files, fingerprints, tokens and batches, whatever the engine."""
