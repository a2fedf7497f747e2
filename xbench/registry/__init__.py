"""The installed plugins, their items, and references to items."""
