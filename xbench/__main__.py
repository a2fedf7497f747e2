"""`python -m xbench`."""

from xbench.cli import main

main()
