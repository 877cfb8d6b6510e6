"""What runs cost: time over a plain forward pass, memory, and how both grow."""
