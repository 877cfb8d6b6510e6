"""A page made of what a run leaves: statprune.json and the results beside it."""
