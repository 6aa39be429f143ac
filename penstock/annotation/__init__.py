"""Bulk annotation of a table: rows in, one job, rows out. Knows files and the client, no server."""
