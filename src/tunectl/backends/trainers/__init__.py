"""TRL trainers."""
