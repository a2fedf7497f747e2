"""Fidelity: the score while pixels are removed in the order of the map."""
