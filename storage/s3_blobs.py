"""Blobs in a bucket of anything that speaks S3: one object each, under its id after a prefix.

Credentials come from where boto3 looks for them. Knows no owner and no table.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from penstock.errors import NotFound, StackError, Unavailable
from storage.blobs import NewBlob, checked, is_blob_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART: Final = 8 * 2**20  #: bytes of a part; S3 takes no fewer than 5 MiB and no more than 10,000
PIECE: Final = 4 * 2**20  #: bytes of one ranged read
TIMEOUT: Final = 20  #: seconds of a connection's silence
_GONE: Final = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}


class S3Blobs:
    """Objects `prefix + name` of a bucket. `endpoint`: None is Amazon's own."""

    def __init__(
        self, bucket: str, *, prefix: str = "", endpoint: str | None = None, region: str | None
    ) -> None:
        self._at = {"Bucket": bucket}
        self._prefix = prefix
        self._client = _client(endpoint, region)

    def create(self, name: str) -> NewBlob:
        return _S3Blob(self._client, self._place(name))

    def open(self, name: str) -> BinaryIO:
        place = self._place(name)
        with _as_unavailable():
            size: int = self._client.head_object(**place)["ContentLength"]
        # A buffered reader asks for a whole piece at a time, whatever is read of it.
        return cast(BinaryIO, io.BufferedReader(_Ranges(self._client, place, size), PIECE))

    def delete(self, name: str) -> None:
        place = self._place(name)
        with _as_unavailable():
            for upload in self._uploads(place["Key"]):
                with suppress(NotFound), _as_unavailable():
                    self._client.abort_multipart_upload(**place, UploadId=upload["UploadId"])
            self._client.delete_object(**place)

    def idle(self, seconds: float) -> Iterator[str]:
        limit = datetime.now(UTC) - timedelta(seconds=seconds)
        with _as_unavailable():
            for page in self._pages("list_objects_v2", self._prefix):
                yield from self._old(page.get("Contents", ()), "LastModified", limit)
            yield from self._old(self._uploads(self._prefix), "Initiated", limit)

    def _old(self, found: Any, when: str, limit: datetime) -> Iterator[str]:
        for one in found:
            name = one["Key"].removeprefix(self._prefix)
            if is_blob_name(name) and one[when] < limit:
                yield name

    def _uploads(self, prefix: str) -> Iterator[Any]:
        """The unfinished ones."""
        for page in self._pages("list_multipart_uploads", prefix):
            yield from page.get("Uploads", ())

    def _pages(self, call: str, prefix: str) -> Any:
        return self._client.get_paginator(call).paginate(**self._at, Prefix=prefix)

    def _place(self, name: str) -> dict[str, str]:
        return {**self._at, "Key": self._prefix + checked(name)}


class _S3Blob:
    """Sent in parts. A small one is sent at once; there is nothing in the bucket before."""

    def __init__(self, client: Any, place: dict[str, str]) -> None:
        self._client = client
        self._place = place
        self._waiting = bytearray()
        self._upload: dict[str, str] | None = None
        self._parts: list[dict[str, object]] = []
        self._done = False

    def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= PART:
            self._send(bytes(self._waiting[:PART]))
            del self._waiting[:PART]

    def commit(self) -> None:
        rest = bytes(self._waiting)
        with _as_unavailable():
            if self._upload is None:
                self._client.put_object(**self._place, Body=rest)
            else:
                if rest:
                    self._send(rest)
                parts = {"Parts": self._parts}
                self._client.complete_multipart_upload(**self._upload, MultipartUpload=parts)
        self._done = True

    def abort(self) -> None:
        self._waiting.clear()
        if self._upload is not None and not self._done:
            # What stays is found later, by its age.
            with suppress(Unavailable, NotFound), _as_unavailable():
                self._client.abort_multipart_upload(**self._upload)

    def _send(self, data: bytes) -> None:
        number = len(self._parts) + 1
        with _as_unavailable():
            if self._upload is None:
                started = self._client.create_multipart_upload(**self._place)
                self._upload = {**self._place, "UploadId": started["UploadId"]}
            sent = self._client.upload_part(**self._upload, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


class _Ranges(io.RawIOBase):
    """An object read in ranges, so that no connection has to outlive a slow reader."""

    def __init__(self, client: Any, place: dict[str, str], size: int) -> None:
        self._client = client
        self._place = place
        self._size = size
        self._next = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        end = min(self._next + len(into), self._size)
        if end == self._next:
            return 0
        with _as_unavailable():
            found = self._client.get_object(**self._place, Range=f"bytes={self._next}-{end - 1}")
            data: bytes = found["Body"].read()
        into[: len(data)] = data
        self._next += len(data)
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(PIECE), b""))


def _client(endpoint: str | None, region: str | None) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise StackError('A bucket for files needs boto3: pip install "penstock[s3]".') from None
    config = Config(
        connect_timeout=5,
        read_timeout=TIMEOUT,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=32,
    )
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name=region, config=config
    )


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """No bucket and no address in the sentence: it is shown to clients."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) in _GONE:
            raise NotFound("The content of this file is not there any more.") from None
        raise Unavailable("The store of files is away.") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise Unavailable("The store of files is away.") from error
