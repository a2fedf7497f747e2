"""Checks of explainers: randomisation, stability, class sensitivity, sparsity."""
