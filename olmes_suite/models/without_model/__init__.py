"""Backends that answer without a model: mock, oracle and floor."""
