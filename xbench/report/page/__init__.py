"""Make a page that opens offline from the folders of one or several runs, and from nothing else.

The page is a row of panels. This package defines what a panel is. The panels of xbench are in `xbench.report.panels`.
"""

from xbench.report.page.builder import write_report
from xbench.report.page.draft import Draft
from xbench.report.page.panel import Panel, Section
from xbench.report.page.places import Place
from xbench.report.page.source import Source

__all__ = ["Draft", "Panel", "Place", "Section", "Source", "write_report"]
