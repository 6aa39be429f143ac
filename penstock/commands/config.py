"""The settings of a command, and the refusals that every command shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import StackError

if TYPE_CHECKING:
    from penstock.settings import Settings


def load_settings() -> Settings:
    """Settings of the environment, with the model that the checkout ships found from anywhere."""
    from penstock.settings import Settings
    from penstock.stack.model import resolve_model

    settings = Settings()
    model = settings.model.model_copy(update={"name": resolve_model(settings.model.name)})
    return settings.model_copy(update={"model": model})


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


def check_exposure(settings: Settings) -> None:
    """Refuse to be open to the network without a key or a password."""
    from penstock.hosts import is_loopback

    if not is_loopback(settings.api.host) and not settings.api.keys:
        raise StackError(
            f"The API needs keys to listen on {settings.api.host}: set PENSTOCK_API__KEYS, "
            "or PENSTOCK_API__HOST=127.0.0.1."
        )


def check_flower_exposure(settings: Settings) -> None:
    """Refuse to show the workers to the network without a password."""
    from penstock.hosts import is_loopback

    if not is_loopback(settings.flower.host) and settings.flower.basic_auth is None:
        raise StackError(
            f"Flower needs a password to listen on {settings.flower.host}: "
            "set PENSTOCK_FLOWER__BASIC_AUTH=user:password, or PENSTOCK_FLOWER__HOST=127.0.0.1."
        )
