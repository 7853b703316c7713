"""Alembic's entry: runs on the connection that api.history.migrate hands over, inside its
transaction.
"""

from alembic import context

from api.history.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata)
context.run_migrations()
