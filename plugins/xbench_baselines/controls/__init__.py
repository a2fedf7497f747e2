"""Controls that every explainer must beat."""
