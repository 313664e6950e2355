"""Reinforcement learning from preferences: rewards, rollouts, validation and the report."""
