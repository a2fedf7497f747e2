"""The classifiers: test figures, calibration, training."""
