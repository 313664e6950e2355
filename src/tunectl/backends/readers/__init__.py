"""Read the file formats, Hub data sets and web pages that ingest accepts."""
