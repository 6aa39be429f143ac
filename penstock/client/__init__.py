"""The Python SDK: `Penstock` talks to a running service. Knows the wire contract alone."""

from penstock.client.client import DEFAULT_URL, Penstock
from penstock.client.job import Answer, Job

__all__ = ["DEFAULT_URL", "Answer", "Job", "Penstock"]
