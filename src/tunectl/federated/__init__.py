"""Federated training: one adapter out of those that several owners of data fit."""
