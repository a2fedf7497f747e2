"""The user's request: configuration, selection of plugins, suites, and grids of conventions."""
