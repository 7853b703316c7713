"""Titles, branches, replaced turns, text to search in, idempotency keys.

Nothing is rewritten, so this takes no longer on a large database, and a server of the version
before goes on working beside it: what it writes meanwhile has no folded text and is searched for
as it stands.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    for column in (
        sa.Column("title", sa.Text()),
        sa.Column("branched_from_chat", sa.Text()),
        sa.Column("branched_from_position", sa.BigInteger()),
        sa.Column("hidden_turns", sa.BigInteger(), nullable=False, server_default="0"),
    ):
        op.add_column("chats", column)
    op.add_column("turns", sa.Column("replaces", sa.BigInteger()))
    op.add_column("turns", sa.Column("folded", sa.Text()))
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("chat_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("turn_id", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text()),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "idempotency_key"),
        sa.ForeignKeyConstraint(
            ["owner", "chat_id"], ["chats.owner", "chats.chat_id"], ondelete="CASCADE"
        ),
    )
    op.create_index("idempotency_keys_by_chat", "idempotency_keys", ["owner", "chat_id"])
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_ms"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    for name in ("folded", "replaces"):
        op.drop_column("turns", name)
    for name in ("hidden_turns", "branched_from_position", "branched_from_chat", "title"):
        op.drop_column("chats", name)
