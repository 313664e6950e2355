"""Files on disk: paths, atomic writes, locks, manifests, row counts and the records of the pipeline."""
