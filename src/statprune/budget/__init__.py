"""How much to keep, and where."""
