"""A run: what is posted, followed and written, and can be interrupted at any moment."""
