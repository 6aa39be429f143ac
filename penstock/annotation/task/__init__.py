"""What is asked about each row: the task file, its template, its questions and its answers."""
