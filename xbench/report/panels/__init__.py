"""The panels of the report's page, a folder each, and their order."""

from xbench.report.page.panel import Panel
from xbench.report.panels.agreement.panel import AgreementPanel
from xbench.report.panels.cards.panel import CardsPanel
from xbench.report.panels.cost.panel import CostPanel
from xbench.report.panels.counterfactuals.panel import CounterfactualsPanel
from xbench.report.panels.curves.panel import CurvesPanel
from xbench.report.panels.gallery.panel import GalleryPanel
from xbench.report.panels.models.panel import ModelsPanel
from xbench.report.panels.paper.panel import PaperPanel
from xbench.report.panels.ranking.panel import RankingPanel
from xbench.report.panels.reproduce.panel import ReproducePanel

PANELS: tuple[Panel, ...] = (
    RankingPanel(),
    CurvesPanel(),
    GalleryPanel(),
    CounterfactualsPanel(),
    AgreementPanel(),
    CostPanel(),
    ModelsPanel(),
    PaperPanel(),
    CardsPanel(),
    ReproducePanel(),  # the last: it lists the downloads that the others offer
)
"""In the order of the page."""
