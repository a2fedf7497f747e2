"""CycleGAN activation maximization (Katzmann et al.), and plain activation maximization on the image beside it."""
