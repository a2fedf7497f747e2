"""One or several runs -> a folder with a page that opens offline, made from run folders alone."""

from xbench.report.page.builder import write_report
from xbench.report.page.source import Source

__all__ = ["Source", "write_report"]
