"""Tables as sources and sinks: files and frames, read and written row by row. Knows no task."""
