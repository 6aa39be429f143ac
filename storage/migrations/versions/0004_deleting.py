"""What tells a job that retention is deleting: it is hidden first, then removed in portions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # A constant default: no row is rewritten, and the lock is short.
    op.add_column(
        "batches", sa.Column("deleting", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("batches", "deleting")
