"""Turns of conversations that wait for each other, answers of imported ones, and the models that
workers are ordered to serve. What the code of earlier schemas stores meanwhile has its earlier turns
in its prompt, waits for no other turn, and makes none wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_SAID = ["owner", "conversation_id", "created_at", "id"]
_OPEN = ["owner", "conversation_id", "created_at"]
_UPDATED = ["owner", "updated_at", "id"]


def upgrade() -> None:
    # Nullable, or with a constant default: no row is rewritten, and the locks are short. Some may
    # be there from an attempt that gave way to the service.
    op.alter_column("messages", "batch_id", existing_type=sa.Text(collation="C"), nullable=True)
    for column in (
        sa.Column("history", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("open", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("messages", column, if_not_exists=True)
    for column in (
        sa.Column("wanted", sa.Text(collation="C"), nullable=True),
        sa.Column("load_tries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("load_error", sa.Text(), nullable=True),
    ):
        op.add_column("workers", column, if_not_exists=True)
    with op.get_context().autocommit_block():
        _index("ix_messages_said", "messages", _SAID)
        _index("ix_messages_open", "messages", _OPEN, where=sa.text("open"))
        _index("ix_conversations_updated_at", "conversations", _UPDATED)
        # The new one leads with the same columns.
        op.drop_index(
            "ix_messages_conversation", "messages", postgresql_concurrently=True, if_exists=True
        )


def downgrade() -> None:
    op.execute("DELETE FROM messages WHERE batch_id IS NULL")
    op.create_index("ix_messages_conversation", "messages", ["owner", "conversation_id", "id"])
    op.drop_index("ix_conversations_updated_at", "conversations")
    op.drop_index("ix_messages_open", "messages")
    op.drop_index("ix_messages_said", "messages")
    for column in ("load_error", "load_tries", "wanted"):
        op.drop_column("workers", column)
    for column in ("answered_at", "answer", "open", "history"):
        op.drop_column("messages", column)
    op.alter_column("messages", "batch_id", existing_type=sa.Text(collation="C"), nullable=False)


def _index(
    name: str, table: str, columns: list[str], where: sa.TextClause | None = None
) -> None:
    """A failed attempt leaves an invalid one behind."""
    op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
    op.create_index(name, table, columns, postgresql_concurrently=True, postgresql_where=where)
