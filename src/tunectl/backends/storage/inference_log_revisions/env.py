"""Run the revisions of the inference log on the connection of ``inference_log_migration``. Alembic executes this file."""

from alembic import context

options = context.config.attributes
context.configure(connection=options["connection"], version_table=options["version_table"])
context.run_migrations()
