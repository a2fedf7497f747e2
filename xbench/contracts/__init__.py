"""The four things a plugin can be."""
