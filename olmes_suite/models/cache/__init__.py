"""Responses kept across runs, and the backend that answers from them."""
