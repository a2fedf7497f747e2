"""Metric cards: what the numbers mean."""
