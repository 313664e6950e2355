"""Sections of the configuration, one per file, named as their stage and their folder in conf/."""
