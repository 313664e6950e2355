"""From an alert to a promoted release: controller, state machine and activities."""
