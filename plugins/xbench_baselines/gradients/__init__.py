"""Explainers that read gradients: plain, guided, iterated, averaged over noise or along paths."""
