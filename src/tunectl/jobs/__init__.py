"""Builds on other people's machines: the script of a job, and the records of jobs that were submitted."""
