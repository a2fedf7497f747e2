"""Make a leaderboard into a folder of pages that any static host serves, and that opens from `file://` as well."""

from xbench.leaderboard.site.builder import REPORTS, write_site

__all__ = ["REPORTS", "write_site"]
