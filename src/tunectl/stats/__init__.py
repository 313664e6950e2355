"""What several rooms share: intervals and tests."""
