"""Runs migrations on the connection that `Database.migrate` hands over; its transaction holds all of them."""

from __future__ import annotations

from alembic import context

from MediScanLib.server.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False
)
context.run_migrations()
