"""Webhooks: a job's `callback_url`, and what endpoints and deliveries still lacked. The tables of
the first schema were never written to, so that their indexes are made at once."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ENDPOINTS, _DELIVERIES = "webhook_endpoints", "webhook_deliveries"
_PENDING = sa.text("state = 'pending'")


def _id(name: str) -> sa.Column[str]:
    """A column of ids, empty in rows that the code of an earlier schema would write."""
    return sa.Column(name, sa.Text(collation="C"), server_default=sa.text("''"), nullable=False)


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _add(table: str, *columns: sa.Column[Any]) -> None:
    for column in columns:
        op.add_column(table, column)


def upgrade() -> None:
    # The one that the service uses, so first: where it is in use, env.py begins again.
    op.add_column("batches", sa.Column("callback_url", sa.Text()))
    _add(
        _ENDPOINTS,
        sa.Column("name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("old_secret", sa.LargeBinary()),
        _time("old_secret_until"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("callbacks", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    _add(
        _DELIVERIES,
        _id("owner"),
        _id("batch_id"),
        sa.Column("url", sa.Text()),
        _id("receiver"),
        sa.Column("status_code", sa.SmallInteger()),
        _time("ended_at"),
    )
    op.create_table(
        "webhook_receivers",
        sa.Column("receiver", sa.Text(collation="C"), nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("receiver", name=op.f("pk_webhook_receivers")),
    )
    op.create_table(
        "webhook_outcomes",
        sa.Column("outcome", sa.Text(collation="C"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("outcome", name=op.f("pk_webhook_outcomes")),
    )
    _make_indexes()


def _make_indexes() -> None:
    op.create_index(
        "ix_webhook_endpoints_callbacks",
        _ENDPOINTS,
        ["owner"],
        unique=True,
        postgresql_where=sa.text("callbacks"),
    )
    op.drop_index("ix_webhook_deliveries_due", _DELIVERIES)
    op.drop_index("ix_webhook_deliveries_endpoint_id", _DELIVERIES)
    op.create_index(
        "ix_webhook_deliveries_turn",
        _DELIVERIES,
        ["receiver", "next_at", "id"],
        postgresql_where=_PENDING,
    )
    op.create_index(
        "ix_webhook_deliveries_leased",
        _DELIVERIES,
        ["receiver"],
        postgresql_where=sa.text("state = 'delivering'"),
    )
    op.create_index("ix_webhook_deliveries_owner_id", _DELIVERIES, ["owner", "id"])
    op.create_index("ix_webhook_deliveries_endpoint_id", _DELIVERIES, ["endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_batch_id", _DELIVERIES, ["batch_id", "id"])
    op.create_index("ix_webhook_deliveries_created_at", _DELIVERIES, ["created_at"])


def downgrade() -> None:
    for name in ("created_at", "batch_id", "endpoint_id", "owner_id", "leased", "turn"):
        op.drop_index(f"ix_webhook_deliveries_{name}", _DELIVERIES)
    op.create_index("ix_webhook_deliveries_endpoint_id", _DELIVERIES, ["endpoint_id"])
    op.create_index(
        "ix_webhook_deliveries_due", _DELIVERIES, ["next_at"], postgresql_where=_PENDING
    )
    op.drop_index("ix_webhook_endpoints_callbacks", _ENDPOINTS)
    op.drop_table("webhook_outcomes")
    op.drop_table("webhook_receivers")
    for name in ("ended_at", "status_code", "receiver", "url", "batch_id", "owner"):
        op.drop_column(_DELIVERIES, name)
    for name in ("callbacks", "updated_at", "old_secret_until", "old_secret", "name"):
        op.drop_column(_ENDPOINTS, name)
    op.drop_column("batches", "callback_url")
