"""How many requests and tokens a minute a key's owner may have; null is what the settings say."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_COLUMNS = ("requests_per_minute", "tokens_per_minute")


def upgrade() -> None:
    # Nullable and without a default: no row is rewritten, and the lock is short.
    for name in _COLUMNS:
        op.add_column("api_keys", sa.Column(name, sa.Integer(), nullable=True))


def downgrade() -> None:
    for name in reversed(_COLUMNS):
        op.drop_column("api_keys", name)
