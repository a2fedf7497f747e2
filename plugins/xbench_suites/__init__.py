"""The suites that come with xbench: one per paper, a quick one, and all there is."""
