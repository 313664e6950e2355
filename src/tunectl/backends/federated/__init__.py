"""Flower, in a separate environment, and the local trainings that it asks for."""
