"""Tracking of builds and releases, and the spool for records that no tracker has taken yet. No tracker's library here."""
