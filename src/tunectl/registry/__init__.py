"""The release registry: immutable releases, the champion pointer and the event log.

It stores who is champion; who becomes it is decided by ``retraining/promotion_gate.py`` (before live traffic) and
``canary/sequential_test.py`` (on live traffic), or by a person.
"""
