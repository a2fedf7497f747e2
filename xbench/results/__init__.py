"""The files that a run leaves, as records: written here, read here, without torch."""
