"""How far labels can be trusted: pure statistics. Knows no file, no service and no terminal."""
