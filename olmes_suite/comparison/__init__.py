"""Comparing recorded runs: paired tests, power, and the gate for CI."""
