"""The way from an image to its counterfactual."""
