"""See it heal: the whole loop with real processes, told as it happens. ``run_loop_demo.py`` plays it on the example."""
