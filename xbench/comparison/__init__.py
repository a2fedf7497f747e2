"""Compare runs from their files alone: rank explainers, test them in pairs and over datasets, compare metrics."""

from xbench.comparison.blocks import AcrossBlocks, Friedman, across_blocks, friedman, nemenyi
from xbench.comparison.cards import Apart, differing_conventions, kept_apart
from xbench.comparison.groups import Entry, RankedGroup, Run, RunSetting, ranked_groups, read_runs
from xbench.comparison.overview import Comparison, MetricAgreement, compare
from xbench.comparison.ranking import Ranking, Standing, ranking

__all__ = [
    "AcrossBlocks",
    "Apart",
    "Comparison",
    "Entry",
    "Friedman",
    "MetricAgreement",
    "RankedGroup",
    "Ranking",
    "Run",
    "RunSetting",
    "Standing",
    "across_blocks",
    "compare",
    "differing_conventions",
    "friedman",
    "kept_apart",
    "nemenyi",
    "ranked_groups",
    "ranking",
    "read_runs",
]
