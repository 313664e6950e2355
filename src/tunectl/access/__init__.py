"""API keys and the errors that every service answers with."""
