"""A page that posts a job and chats, without a framework; `serve.py` puts it before a service."""
