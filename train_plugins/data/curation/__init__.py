"""Data sets made for training by `olmes data`: mixes, prompts, responses, preferences."""
