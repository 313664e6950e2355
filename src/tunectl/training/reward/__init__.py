"""The reward model: pairs, metrics, its gate and artifacts.

The trainer is ``backends/trainers/reward_trainer.py``, its loop ``backends/trainers/trainer_loop.py``, its loss (Bradley-Terry)
``loss_of`` in ``backends/modeling/reward_forward.py``.
"""
