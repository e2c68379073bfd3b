"""The transformers backend: generation and log-likelihoods with shared prefixes computed once."""
