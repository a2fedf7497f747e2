"""What every computation stands on: devices and precision, batches that fit, seeds, arrays on disk, blame."""
