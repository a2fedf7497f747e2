"""What each explainer cost."""
