"""Test two releases on live traffic: sequential test, metrics and power."""
