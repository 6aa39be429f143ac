"""A look at a table and a task before the run: what is wrong, how long it will be."""
