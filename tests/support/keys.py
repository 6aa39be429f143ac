"""API keys in the database, as `penstock keys` makes them."""

from __future__ import annotations

from penstock.keys import DEFAULT_SCOPES, KeySigner
from storage import keys
from storage.database import Database
from storage.records import NewApiKey

SECRET = "a secret of the server, for tests only"
SIGNER = KeySigner(SECRET)


def add(database: Database, owner: str = "default", **given: object) -> str:
    """Store a key with the default scopes; what its holder sends."""
    made = SIGNER.make()
    scopes = tuple(scope.value for scope in DEFAULT_SCOPES)
    fields = {"id": made.id, "owner": owner, "name": "", "digest": made.digest, "scopes": scopes}
    with database.begin() as conn:
        keys.add(conn, NewApiKey(**{**fields, **given}))  # type: ignore[arg-type]
    return made.text


def revoke(database: Database, key: str) -> None:
    with database.begin() as conn:
        assert keys.revoke(conn, id_of(key))


def id_of(key: str) -> str:
    key_id = SIGNER.id_of(key)
    assert key_id is not None
    return key_id


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
