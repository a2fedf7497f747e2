"""Options, by family; importable without torch."""
