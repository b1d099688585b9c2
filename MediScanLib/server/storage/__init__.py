"""What a server keeps: results, jobs, tokens and the audit log, in SQLite or PostgreSQL."""
