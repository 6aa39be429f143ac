"""What a result has beside its text: probabilities, log-probabilities, further answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Nullable and without a default: no row is rewritten, and the lock is short.
    op.add_column(
        "results", sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("results", "detail")
