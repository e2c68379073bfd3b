"""The tokens of evaluation and training text, and their hashes."""
