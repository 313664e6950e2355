"""Revisions of the inference log's tables, for Alembic.

To add one: write ``versions/r0003_WHAT.py`` with ``revision = "0003"``, ``down_revision = "0002"`` and ``upgrade()``; change the
tables in ``inference_log_schema.py`` alike, and ``CURRENT`` in ``inference_log_migration.py``. It must run on SQLite and
PostgreSQL, inside the transaction that is open. A test compares the tables of a migrated database with those of a new one.
"""
