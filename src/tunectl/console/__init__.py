"""The console: a web page that shows everything about a project, read from its files."""
