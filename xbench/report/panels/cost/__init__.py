"""Panel of each explainer's cost."""
