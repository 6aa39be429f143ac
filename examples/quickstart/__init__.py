"""The shortest useful program."""
