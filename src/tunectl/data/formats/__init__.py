"""Which instruction format is this, and what does a row of it mean? One family of formats a file, one table of all."""
