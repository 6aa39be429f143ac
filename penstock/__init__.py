"""Penstock: feeds a GPU from a durable queue. This package is what people install and import."""

__version__ = "0.1.0"
