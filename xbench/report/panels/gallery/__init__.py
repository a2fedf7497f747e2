"""Images, the expert's outline, and the map of every explainer."""
