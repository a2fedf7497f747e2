"""Panel of curves, with a small picture for each explainer."""
