"""The n-gram index of evaluation items, and the search for its n-grams in training text."""
