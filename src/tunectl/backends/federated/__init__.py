"""Flower, in an environment of its own, and the local fits that it asks for."""
