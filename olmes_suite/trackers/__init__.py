"""Experiment trackers: what a run, a gate or a training's evaluation reports, and a module for each tracker."""
