"""Parts of the monitor: what windows are compared with, one look at the live store, its pages."""
