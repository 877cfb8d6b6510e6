"""Pruned models in other runtimes, and quantised."""
