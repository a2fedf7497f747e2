"""What is computed with networks: passes, rules for operations, proofs, training, the copy that scores."""
