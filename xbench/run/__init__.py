"""A run from plan to folder: plan, build the artifacts, score, summarise, write."""
