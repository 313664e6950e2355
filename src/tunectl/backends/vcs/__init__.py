"""Git and DVC."""
