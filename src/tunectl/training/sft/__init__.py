"""Supervised fine-tuning: the tokenized data set and the report.

The trainer is ``backends/trainers/sft_trainer.py``, its loop ``backends/trainers/trainer_loop.py``, its loss
``cross_entropy_loss`` in ``backends/modeling/batching.py``.
"""
