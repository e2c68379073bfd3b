"""OpenAI-compatible servers: one client for models, judges and classifiers, and what requests cost."""
