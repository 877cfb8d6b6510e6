"""How fast, and how well that is told beforehand."""
