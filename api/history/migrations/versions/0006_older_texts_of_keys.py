"""A key that is rotated again keeps every older text for its time, not the last one only."""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("older_digests", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_keys", "older_digests")
