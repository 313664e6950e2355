"""Turn the rows of a source into records."""
