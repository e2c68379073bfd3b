"""The vLLM backend: one engine for a whole run."""
