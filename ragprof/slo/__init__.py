"""Objectives, error budgets, burn rates, and alert rules replayed on history."""
