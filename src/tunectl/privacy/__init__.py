"""What several rooms share: finding and masking personal data."""
