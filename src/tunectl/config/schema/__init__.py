"""Sections of the configuration, one a file, named as their stage and their folder in conf/."""
