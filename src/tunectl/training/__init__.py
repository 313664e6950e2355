"""What is trained and how, as plain data: arguments, batches, schedules, reports."""
