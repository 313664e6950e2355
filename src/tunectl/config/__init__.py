"""The configuration: what may be set (schema) and how it is read (loading)."""
