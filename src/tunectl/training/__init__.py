"""Plain data of trainings: arguments, batches, schedules, reports."""
