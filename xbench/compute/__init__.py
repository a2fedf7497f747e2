"""Computation with networks: passes, rules for operations, proofs, training, and the copy that scores."""
