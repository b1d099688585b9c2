"""The tables, as the newest migration leaves them. Times are seconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False),  # name of the token
    Column("key", String(64)),  # of the client, so that a repeated submission is the same job
    Column("fingerprint", String(64), nullable=False),  # of what was submitted
    Column("kind", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", String(100), nullable=False, default="waiting"),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("slices_done", Integer, nullable=False, default=0),
    Column("slices_total", Integer, nullable=False, default=0),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("expires", Double, nullable=False),
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("worker", String(64)),
    Column("lease", Double),
    Column("attempt", Integer, nullable=False, default=0),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Index("jobs_by_state", "state", "created"),
    Index("jobs_by_key", "owner", "key", unique=True),
)
"""state: queued, running, done, failed or cancelled."""

studies = Table(
    "studies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("number", Integer, nullable=False, default=0),
    Column("owner", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("source", Text, nullable=False),
    Column("facts", Text, nullable=False),  # what packing leaves out of the head
    Column("head", LargeBinary, nullable=False),
    Column("prediction", Text),
    Column("maps", Text),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Index("studies_by_job", "job", "number"),
    Index("studies_by_expiry", "expires"),
)
"""state: queued, done or failed."""

chunks = Table(
    "chunks",
    metadata,
    Column("study", String(32), ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
"""The pixels of a study in pieces."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("event", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("details", Text, nullable=False),  # JSON
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
"""Each row's digest covers its content and the digest of the row before. Triggers refuse changes."""
