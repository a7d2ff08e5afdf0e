"""Folds x seeds of one configuration: planned, run in child processes, never repeated."""
