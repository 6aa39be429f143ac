"""Which results of a job became visible together, for those who follow it. A trigger writes it, so
that results of the previous release, which goes on meanwhile, are noted as well."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from storage.table_locks import lock_tables

revision = "0010"
down_revision = "0009"

# Chats are followed by their text. The number is drawn when the statement ends, and by then every
# statement that stores results has locked its job's row, until its transaction ends.
_FUNCTION = """
    CREATE FUNCTION note_arrivals() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO arrivals (batch_id, positions)
        SELECT batch_id, array_agg(position ORDER BY position) FROM fresh
        WHERE starts_with(batch_id, 'batch_')
        GROUP BY batch_id;
        RETURN NULL;
    END $$
"""
_TRIGGER = """
    CREATE TRIGGER results_arrivals AFTER INSERT ON results
    REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION note_arrivals()
"""


def upgrade() -> None:
    lock_tables(op.get_bind(), "batches", "results", mode="SHARE ROW EXCLUSIVE")
    op.create_table(
        "arrivals",
        sa.Column("batch_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("positions", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_arrivals_batch_id_batches", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_arrivals"),
    )
    op.execute(_FUNCTION)
    op.execute(_TRIGGER)


def downgrade() -> None:
    lock_tables(op.get_bind(), "batches", "results", mode="SHARE ROW EXCLUSIVE")
    op.execute("DROP TRIGGER results_arrivals ON results")
    op.execute("DROP FUNCTION note_arrivals()")
    op.drop_table("arrivals")
