"""Intervals, tests, classification figures, reliability and rank agreement; numpy alone."""
