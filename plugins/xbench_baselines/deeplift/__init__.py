"""DeepLIFT and DeepSHAP, by rules for every operation."""
