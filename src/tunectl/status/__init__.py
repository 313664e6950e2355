"""Collect and format what ``tunectl status`` shows about a project's production."""
