"""The console: one page for everything that a project knows, read from its files."""
