"""Accuracies on binarised maps, and the classifiers that are trained on them."""
