"""The settings of a command, and the refusals that every command shares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from penstock.errors import StackError

if TYPE_CHECKING:
    from penstock.settings import Settings


def load_settings() -> Settings:
    """Settings of the environment, with the model that the checkout ships found from anywhere."""
    from penstock.settings import Settings
    from penstock.stack.model import resolve_model

    settings = Settings()
    model = settings.model.model_copy(
        update={
            "name": resolve_model(settings.model.name),
            "choices": [_resolved(choice) for choice in settings.model.choices],
        }
    )
    return settings.model_copy(update={"model": model})


def _resolved(choice: str) -> str:
    from penstock.stack.model import resolve_model

    served, equals, name = choice.rpartition("=")
    return f"{served}{equals}{resolve_model(name)}"


def require_database(settings: Settings) -> str:
    """Its URL, or a sentence that names the variable."""
    if settings.database.url is None:
        raise StackError(
            "PENSTOCK_DATABASE__URL is not set; it names the PostgreSQL to use, such as "
            "postgresql://user:password@host/penstock (`penstock up` brings its own)."
        )
    return settings.database.url.get_secret_value()


def require_broker(settings: Settings) -> str:
    """Its URL, or a sentence that names the variable."""
    if settings.broker.url is None:
        raise StackError(
            "PENSTOCK_BROKER__URL is not set; it names the Redis to use, such as "
            "redis://:password@host:6379/0 (`penstock up` brings its own)."
        )
    return settings.broker.url.get_secret_value()


def key_secret(settings: Settings) -> str:
    """What API keys are made with: of the settings, else of the data directory."""
    from penstock.stack.secret import read_secret

    if settings.api.key_secret is not None:
        return settings.api.key_secret.get_secret_value()
    if (secret := read_secret(settings.data_dir)) is None:
        raise StackError(
            "There is no secret to make keys with: `penstock up` makes one in its --data-dir "
            "(PENSTOCK_DATA_DIR); elsewhere set PENSTOCK_API__KEY_SECRET, for the API and here."
        )
    return secret


def stack_database(settings: Settings) -> str:
    """The database of the settings, else of the `penstock up` that runs in the data directory."""
    if settings.database.url is None:
        try:
            facts = json.loads((settings.data_dir.expanduser() / "stack.json").read_text())
            return str(facts["database_url"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
    return require_database(settings)


def check_exposure(settings: Settings) -> None:
    """Refuse to be open to the network without a key or a password. Whether there is a key in the
    database, the API itself looks."""
    from penstock.hosts import is_loopback
    from penstock.stack.secret import read_secret

    api = settings.api
    if is_loopback(api.host) or api.keys or api.key_secret or read_secret(settings.data_dir):
        return
    raise StackError(
        f"The API needs keys to listen on {api.host}: set PENSTOCK_API__KEYS, make one with "
        "`penstock keys create` while it runs on 127.0.0.1, or set PENSTOCK_API__HOST=127.0.0.1."
    )


def check_flower_exposure(settings: Settings) -> None:
    """Refuse to show the workers to the network without a password."""
    from penstock.hosts import is_loopback

    if not is_loopback(settings.flower.host) and settings.flower.basic_auth is None:
        raise StackError(
            f"Flower needs a password to listen on {settings.flower.host}: "
            "set PENSTOCK_FLOWER__BASIC_AUTH=user:password, or PENSTOCK_FLOWER__HOST=127.0.0.1."
        )
