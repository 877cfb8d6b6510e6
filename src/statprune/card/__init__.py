"""The model card of a folder: README.md, as the Hub reads it."""
