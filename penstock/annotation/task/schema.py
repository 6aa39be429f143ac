"""The published JSON schema of the task file, for editors. Made from the task itself."""

from __future__ import annotations

import json

from penstock.annotation.task.task import Task

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_text() -> str:
    """The schema as a file has it."""
    schema = {"$schema": DIALECT, **Task.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
