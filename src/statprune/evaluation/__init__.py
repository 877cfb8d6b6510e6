"""Quality and speed of any Hugging Face model; knows nothing of pruning."""
