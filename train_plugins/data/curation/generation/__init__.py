"""Completions of models for data sets: which model, asked how, and a journal so that none is paid for twice."""
