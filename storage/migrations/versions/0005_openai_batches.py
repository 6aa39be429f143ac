"""Jobs that come as files: what the file's lines ask each for itself, the batch as OpenAI's clients
see it, and files whose content is a job's outcomes. Nullable columns and new tables: no row is
rewritten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from storage.table_locks import lock_tables

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    lock_tables(op.get_bind(), "batches", "requests", "files")
    op.add_column("batches", sa.Column("ending_at", sa.DateTime(timezone=True)))
    op.add_column("requests", sa.Column("params", postgresql.JSONB()))
    op.add_column("requests", sa.Column("custom_id", sa.Text()))
    op.create_table(
        "openai_batches",
        sa.Column("batch_id", sa.Text(collation="C"), nullable=False),
        sa.Column("owner", sa.Text(collation="C"), nullable=False),
        sa.Column("endpoint", sa.Text(collation="C"), nullable=False),
        sa.Column("completion_window", sa.Text(collation="C"), nullable=False),
        sa.Column("quarantine", sa.Boolean(), nullable=False),
        sa.Column("output_lifetime", sa.Integer(), nullable=True),
        sa.Column("input_file_id", sa.Text(collation="C"), nullable=False),
        sa.Column("output_file_id", sa.Text(collation="C"), nullable=False),
        sa.Column("error_file_id", sa.Text(collation="C"), nullable=False),
        sa.Column("errors", postgresql.JSONB(), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batches.id"],
            name=op.f("fk_openai_batches_batch_id_batches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_openai_batches")),
    )
    op.create_index("ix_openai_batches_owner_batch_id", "openai_batches", ["owner", "batch_id"])
    op.create_index(
        "ix_openai_batches_unread",
        "openai_batches",
        ["batch_id"],
        postgresql_where=sa.text("read_at IS NULL"),
    )
    op.add_column("files", sa.Column("batch_id", sa.Text(collation="C"), nullable=True))
    op.create_foreign_key(
        op.f("fk_files_batch_id_batches"),
        "files",
        "batches",
        ["batch_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.alter_column("files", "bytes", nullable=True)
    op.alter_column("files", "sha256", nullable=True)
    op.create_index(
        "ix_files_batch_id",
        "files",
        ["batch_id"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index(
        "ix_files_uncounted", "files", ["batch_id"], postgresql_where=sa.text("bytes IS NULL")
    )
    op.create_index(
        "ix_files_expires_at",
        "files",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    lock_tables(op.get_bind(), "batches", "requests", "files")
    # Nobody reads their files any more, so they would wait for ever.
    op.execute(
        "UPDATE batches SET status = 'failed', finished_at = now() WHERE status = 'validating'"
    )
    op.execute("DELETE FROM files WHERE batch_id IS NOT NULL")
    op.drop_index("ix_files_expires_at", "files")
    op.drop_index("ix_files_uncounted", "files")
    op.drop_index("ix_files_batch_id", "files")
    op.alter_column("files", "sha256", nullable=False)
    op.alter_column("files", "bytes", nullable=False)
    op.drop_column("files", "batch_id")
    op.drop_table("openai_batches")
    op.drop_column("requests", "custom_id")
    op.drop_column("requests", "params")
    op.drop_column("batches", "ending_at")
