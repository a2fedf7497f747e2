"""The base class of panels: a section of the report's page with its data, template, script and styles."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbench.report.page.draft import Draft
    from xbench.report.page.places import Place

TEMPLATE, SCRIPT, STYLE = "template.html.j2", "script.js", "style.css"


@dataclass(frozen=True)
class Section:
    """Content that a panel puts on the page.

    Attributes:
        words: Variables of its template.
        data: Data that its script has from the start, in JSON's terms, as `xbenchPage.data(name)`.
    """

    words: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None


class Panel(ABC):
    """One section of the report's page.

    The files beside the module of the class belong to it. A panel has those that it needs:

    - `template.html.j2` (Jinja) makes what stands under the title; by default an empty element `<name>-body`.
    - `script.js` fills that element. It calls `xbenchPage.panel(name, {...})`, see `page.js`.
    - `style.css` holds the styles that only this panel needs.

    Attributes:
        name: Lower case. The anchor on the page, and the name of its data.
        title: The heading.
        link: Name in the list of sections; the title if empty.
    """

    name: str
    title: str
    link: str = ""

    def of_place(self, draft: Draft, place: Place) -> Any:  # noqa: ARG002
        """Return what the script needs of one dataset and model, in JSON's terms; None for nothing.

        The page loads it when the reader chooses the place. Tables and figures of the place are written here too.
        """
        return None

    def section(self, draft: Draft) -> Section | None:  # noqa: ARG002
        """Return what stands on the page from the start, or None if these runs have nothing to show here.

        Called once, after `of_place` of all panels and all places.
        """
        return Section()

    @property
    def words(self) -> str:
        """Text of the links to it."""
        return self.link or self.title

    def file(self, name: str) -> str:
        """Read a file beside the panel's module; an empty text if there is none."""
        path = resources.files(type(self).__module__.rpartition(".")[0]).joinpath(name)
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @functools.cached_property
    def template(self) -> str:
        """The text of its template."""
        return self.file(TEMPLATE) or '<div id="{{ name }}-body"></div>\n'
