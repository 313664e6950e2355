"""Tracking: what is told of a build and of releases, and the spool that keeps it until a tracker has it. No tracker's library here."""
