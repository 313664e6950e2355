"""Render chat templates, tokenize, and decide which tokens are trained."""
