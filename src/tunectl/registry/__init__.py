"""The release registry: immutable releases, the champion pointer and the event log."""
