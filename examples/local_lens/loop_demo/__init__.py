"""The retraining loop: the whole of it with real processes, shown as it happens. ``run_loop_demo.py`` plays it on the example."""
