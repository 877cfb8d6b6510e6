"""Writing smaller weights."""
