"""Recipes: YAML files with types."""
