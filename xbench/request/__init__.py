"""What the user asks for: configuration, selection of items, suites, grids of conventions."""
