"""What `tunectl status` shows."""
