"""Blobs in a bucket, over real HTTP to a server that speaks S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from penstock.errors import NotFound, Unavailable
from penstock.ids import new_id
from storage.s3_blobs import PART, S3Blobs

BUCKET = "files"
PREFIX = "penstock/"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket as anybody else sees it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1").Bucket(BUCKET)
    found.create()
    yield found
    found.objects.delete()
    found.delete()


@pytest.fixture
def blobs(endpoint: str, bucket: Any) -> S3Blobs:
    return S3Blobs(BUCKET, prefix=PREFIX, endpoint=endpoint, region="us-east-1")


def _keys(bucket: Any) -> set[str]:
    return {found.key for found in bucket.objects.all()}


def _begin_large(blobs: S3Blobs, name: str) -> Any:
    """One of which a part was sent already."""
    blob = blobs.create(name)
    blob.write(b"x" * (PART + 1))
    return blob


@pytest.mark.parametrize("size", [0, 7, PART, 2 * PART + 5])
def test_what_was_written_is_read_back_once_it_is_committed(
    blobs: S3Blobs, bucket: Any, size: int
) -> None:
    name, content = new_id("file"), b"one\n" + b"two" * (size // 3)
    blob = blobs.create(name)
    for start in range(0, len(content), 3 * 2**20):
        blob.write(content[start : start + 3 * 2**20])
    with pytest.raises(NotFound):
        blobs.open(name)

    blob.commit()
    blob.abort()  # without effect

    with blobs.open(name) as stream:
        assert stream.readline(99) == b"one\n"
        assert stream.read() == content[4:]
    assert _keys(bucket) == {PREFIX + name}


def test_one_that_is_given_up_leaves_nothing(blobs: S3Blobs, bucket: Any) -> None:
    small, large = blobs.create(new_id("file")), _begin_large(blobs, new_id("file"))
    small.write(b"half")

    small.abort()
    large.abort()

    assert _keys(bucket) == set()
    assert list(blobs.idle(-60)) == []


def test_what_nobody_wrote_to_for_long_is_found_the_unfinished_too(
    blobs: S3Blobs, bucket: Any
) -> None:
    whole, broken = new_id("file"), new_id("file")
    blobs.create(whole).commit()
    _begin_large(blobs, broken)
    bucket.put_object(Key="another's", Body=b"")
    bucket.put_object(Key=PREFIX + "not of ours", Body=b"")

    assert whole not in set(blobs.idle(3600))
    assert set(blobs.idle(-60)) == {whole, broken}

    for name in (whole, broken, broken):
        blobs.delete(name)
    assert list(blobs.idle(-60)) == []
    assert _keys(bucket) == {"another's", PREFIX + "not of ours"}


@pytest.mark.parametrize("name", ["", "../x", "file_" + "0" * 33])
def test_no_name_but_an_id_reaches_the_bucket(blobs: S3Blobs, bucket: Any, name: str) -> None:
    for act in (blobs.create, blobs.open, blobs.delete):
        with pytest.raises(NotFound):
            act(name)


def test_a_store_that_is_away_or_refuses_is_unavailable_and_shows_no_address(
    bucket: Any, endpoint: str
) -> None:
    nowhere = S3Blobs(BUCKET, endpoint="http://127.0.0.1:9", region="us-east-1")
    missing = S3Blobs("no-such-bucket", endpoint=endpoint, region="us-east-1")

    for blob in (nowhere.create(new_id("file")), missing.create(new_id("file"))):
        blob.write(b"something")
        with pytest.raises(Unavailable, match="The store of files is away") as caught:
            blob.commit()
        assert "127.0.0.1" not in caught.value.message
