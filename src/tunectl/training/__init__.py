"""Plain data of trainings: arguments, batches, schedules, reports.

The loop is in ``backends/trainers/trainer_loop.py``, trainers of each method beside it; losses are in ``backends/modeling``.
"""
