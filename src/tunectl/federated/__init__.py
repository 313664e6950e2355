"""Federated training: average the adapters that several owners of data have trained, and exchange files with Flower's process."""
