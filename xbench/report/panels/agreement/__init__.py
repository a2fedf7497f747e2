"""Whether metrics put the explainers in the same order."""
