"""What a transformer looks like, as data."""
