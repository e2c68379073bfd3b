"""OpenAI-compatible servers: a client for models, judges and classifiers, and the cost of requests."""
