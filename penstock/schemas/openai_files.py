"""`/v1/files`: what is told of a file, in OpenAI's form."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Purpose = Literal["batch", "batch_output"]


class FileObject(BaseModel):
    """One file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int = Field(description="Of a batch's output: 0 until the batch has ended.")
    created_at: int = Field(description="Seconds since 1970.")
    expires_at: int | None = None
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """A page of files; `last_id` is the next one's `after`."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
