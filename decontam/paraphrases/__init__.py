"""Paraphrase candidates: evaluation items near a training text in an embedding space."""
