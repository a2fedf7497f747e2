"""Panel of how far metrics put the explainers in the same order."""
