"""The response cache, and the backend that answers from it."""
