"""Rows for people to look at, in the files of the tools they use, and back as a gold column."""
