"""The base of every computation: devices and precision, batches that fit the memory, seeds, arrays on disk, blame."""
