"""What came of an annotation, as a page and in the terminal, and what it cost."""
