"""The mathematics: torch tensors in, torch tensors out."""
