"""The embedded stack behind `penstock up`: PostgreSQL, Redis and all processes in one tree.

Knows processes, files and sockets; nothing of jobs, prompts or models.
"""
