"""Speed-up against the share kept, for uniform and per-layer widths."""
