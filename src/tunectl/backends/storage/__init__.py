"""Databases (inference log), object stores (release registry) and downloads from the Hugging Face Hub and the package index."""
