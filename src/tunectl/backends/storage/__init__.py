"""Databases, object stores and downloads."""
