"""Class activation maps, and the feature maps that they read."""
