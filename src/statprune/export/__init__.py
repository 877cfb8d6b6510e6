"""A folder -> one file for another program, checked there; one module a target."""
