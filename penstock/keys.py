"""API keys: how one is made, recognized and compared. Knows no storage and no HTTP.

A key reads `psk_<id>_<secret><seal>`. The seal is made with the server's secret, so that an
invented key is refused without asking anybody; what is stored is a keyed hash of the whole.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIN_SECRET: Final = 32  # characters of the server's secret
_FORM: Final = re.compile(r"(psk_([0-9a-f]{16})_[0-9a-f]{48})([0-9a-f]{16})")


class Scope(StrEnum):
    """What a key is good for."""

    JOBS = "jobs"  #: jobs: post, read, cancel, try again
    CHAT = "chat"  #: chats, completions, conversations
    FILES = "files"  #: files, in and out
    READ = "read"  #: read whatever is the owner's, and change nothing
    ADMIN = "admin"  #: all of these, and what outlives a request: models, webhooks


ALL_SCOPES: Final = frozenset(Scope)
DEFAULT_SCOPES: Final = (Scope.JOBS, Scope.CHAT, Scope.FILES)


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key. `text` is shown once; `digest` is what is stored."""

    id: str
    text: str
    digest: bytes


class KeySigner:
    """Makes and recognizes the keys of one server's secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def make(self) -> MadeKey:
        """A key that nobody else has."""
        key_id = secrets.token_hex(8)
        bare = f"psk_{key_id}_{secrets.token_hex(24)}"
        text = bare + self._seal(bare)
        return MadeKey(key_id, text, self.digest(text))

    def id_of(self, key: str) -> str | None:
        """The id of a key that was made with this secret; None for any other text."""
        form = _FORM.fullmatch(key)
        if form is None or not hmac.compare_digest(self._seal(form[1]), form[3]):
            return None
        return form[2]

    def digest(self, key: str) -> bytes:
        """What is stored of a key."""
        return self._mac("key", key)

    def own(self) -> str:
        """The key by which whoever has the secret asks how the service is; it is nowhere stored."""
        return f"psk_own_{self._mac('own', '').hex()}"

    def _seal(self, bare: str) -> str:
        return self._mac("seal", bare).hex()[:16]

    def _mac(self, purpose: str, text: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}:{text}".encode(), "sha256")
