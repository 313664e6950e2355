"""Fault tests of the server: one scenario a function, shared by the suite (a handful) and ``make faults`` (the full counts)."""
