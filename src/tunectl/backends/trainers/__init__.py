"""Trainers of adapters, reward models and policies on TRL, with their generation, checkpoints and validation."""
