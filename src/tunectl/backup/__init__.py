"""Backup and restore of what one host holds: inference log, keys, registry, records of retrains."""
