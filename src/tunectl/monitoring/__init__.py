"""The drift monitor: windows, signals, two-sample tests, decisions and its pages.

``drift_monitor.py`` closes windows and stores their results; ``drift_detector.py`` tests one window and gives its verdict.
"""
