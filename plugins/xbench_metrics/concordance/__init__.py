"""Concordance of maps with the experts' masks."""
