"""Rankings with intervals and rank sets, their tables and figures."""
