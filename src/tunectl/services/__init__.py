"""Entry points of the long-running programs: server, monitor, retrain controller, console."""
