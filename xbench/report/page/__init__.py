"""One or several runs -> a folder with a page that opens offline, made from run folders alone."""

from xbench.report.page.builder import Source, write_report

__all__ = ["Source", "write_report"]
