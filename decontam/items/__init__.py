"""Evaluation items: the texts of benchmark documents, which the scan looks for in training data."""
