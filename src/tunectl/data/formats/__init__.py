"""Recognize and parse the dataset formats of the field."""
