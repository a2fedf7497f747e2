"""Panel of how to reproduce the numbers, and of the downloads."""
