"""From a declared source to rows: files, text, tables, JSON, chains of rows, references of one input."""
