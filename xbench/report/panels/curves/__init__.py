"""Curves, a small picture for each explainer."""
