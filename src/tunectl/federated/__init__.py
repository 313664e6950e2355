"""Federated training: one adapter from those that several owners of data have trained."""
