"""The commands of `olmes data` that make training data, one module each."""
