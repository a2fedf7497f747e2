"""What makes differences believable: runs read back, ranked, compared in pairs and over datasets, from files alone."""

from xbench.comparison.blocks import AcrossBlocks, Friedman, across_blocks, friedman, nemenyi
from xbench.comparison.cards import Apart, differing_conventions, kept_apart
from xbench.comparison.fields import Entry, Field, Run, Setting, fields, read_runs
from xbench.comparison.overview import Comparison, compare
from xbench.comparison.ranking import Difference, Ranking, Standing, ranking
from xbench.results.replicates import REPLICATES, Replicates, read_replicates, sampling, write_replicates

__all__ = [
    "REPLICATES",
    "AcrossBlocks",
    "Apart",
    "Comparison",
    "Difference",
    "Entry",
    "Field",
    "Friedman",
    "Ranking",
    "Replicates",
    "Run",
    "Setting",
    "Standing",
    "across_blocks",
    "compare",
    "differing_conventions",
    "fields",
    "friedman",
    "kept_apart",
    "nemenyi",
    "ranking",
    "read_replicates",
    "read_runs",
    "sampling",
    "write_replicates",
]
