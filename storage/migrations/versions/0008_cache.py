"""Answers that are reused, and what clients keep under keys of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.table_locks import lock_tables

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    lock_tables(op.get_bind(), "batches", "results")
    # A constant default and a nullable column: no row is rewritten, and the locks are short.
    op.add_column(
        "batches",
        sa.Column("saved_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("results", sa.Column("from_cache", sa.Boolean(), nullable=True))
    op.create_table(
        "response_cache",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("owner", sa.Text(collation="C"), nullable=False),
        sa.Column("batch_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _created(),
        sa.PrimaryKeyConstraint("digest", name="pk_response_cache"),
    )
    op.create_index("ix_response_cache_id", "response_cache", ["id"], unique=False)
    op.create_table(
        "client_cache",
        sa.Column("owner", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        _created(),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_client_cache"),
    )
    op.create_index("ix_client_cache_expires_at", "client_cache", ["expires_at"], unique=False)
    op.create_table(
        "client_cache_reads",
        sa.Column("owner", sa.Text(collation="C"), nullable=False),
        sa.Column("hits", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("misses", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_client_cache_reads"),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    lock_tables(op.get_bind(), "batches", "results")
    for table in ("client_cache_reads", "client_cache", "response_cache"):
        op.drop_table(table)
    op.drop_column("results", "from_cache")
    op.drop_column("batches", "saved_tokens")


def _created() -> sa.Column[object]:
    return sa.Column(
        "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )
