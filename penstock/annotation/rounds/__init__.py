"""What comes after a run: its manifest, running it again, another round, and people's answers."""
