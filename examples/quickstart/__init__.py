"""Short programs, one for each way to use a running service; CI runs them all."""
