"""Tracking of builds and releases, and the spool for unsent records. No tracker's library is used here."""
