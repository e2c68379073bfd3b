"""The n-gram index of evaluation items, and the search for them in training text."""
