"""How to make the numbers again, and what can be downloaded."""
