"""A paper's own numbers beside ours."""
