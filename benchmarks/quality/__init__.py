"""Quality of pruned models, method by method: `python -m benchmarks.quality`."""
