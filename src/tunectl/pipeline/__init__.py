"""The stage table, the runner, resolved configuration, code digests and cost estimates."""
