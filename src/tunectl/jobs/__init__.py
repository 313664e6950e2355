"""Builds on a cluster: the script of a job, and the records of submitted jobs."""
