"""Evaluation items: the texts of benchmark documents that training data are searched for."""
