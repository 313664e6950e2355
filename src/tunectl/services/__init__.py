"""Entry points of the long-running programs."""
