"""The drift monitor: windows, signals, two-sample tests, decisions and its pages."""
