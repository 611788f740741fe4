"""A picture as part of a page.

What belongs here: an SVG as matplotlib writes it, turned into an element that can stand in HTML beside others and takes
its colours from the page. What does not: drawing (plots, user_plots).
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from markupsafe import Markup

from segmentation_assets.core.plots import GREY, INK, PALETTE, SURFACE
from segmentation_assets.core.user_plots import HEAT, ON_HEAT

VARIABLES = {
    INK: "ink",
    "#000000": "ink",
    SURFACE: "surface",
    GREY: "muted",
    HEAT: "heat",
    ON_HEAT: "on-heat",
    **{color: f"c{place}" for place, color in enumerate(PALETTE)},
}
"""Colour to the CSS variable that it becomes, so that a page can be light or dark."""

_ELEMENTS = {"svg", "g", "path", "use", "defs", "clipPath", "rect", "text", "tspan"}
_ATTRIBUTES = {"id", "style", "d", "x", "y", "width", "height", "transform", "viewBox", "clip-path", "href"}
"""All that a drawing needs. Whatever else there is, such as a script or a link, does not get into the page."""

_LONG = re.compile(r"-?\d+\.\d{3,}")
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_FONT_SIZE = re.compile(r"[\d.]+px")


@dataclass(frozen=True)
class InlinePicture:
    """An SVG element for a page.

    Attributes:
        markup: the element, safe to stand in HTML.
        title: what the picture shows, as it was given to it; empty where nobody said.
    """

    markup: Markup
    title: str


def inline(svg: bytes, prefix: str, alt: str = "") -> InlinePicture:
    """An SVG as an element of a page: scaled by the page, in the page's colours and letters.

    Args:
        svg: as ``plots.rendered`` makes it.
        prefix: begins all ids in it, so that those of two pictures of one page differ.
        alt: what is read out instead of it; empty: its title.
    """
    root = ET.fromstring(svg)  # noqa: S314  # matplotlib's own, drawn a moment ago
    title = next((child.text or "" for child in root if _local(child.tag) == "title"), "")
    clean = _copy(root, prefix)
    for name in ("width", "height", "id"):
        clean.attrib.pop(name, None)
    _, _, width, height = clean.attrib["viewBox"].split()
    # The style sheet scales it; the two say in which proportion before it is read.
    clean.attrib.update(
        {"class": "picture", "role": "img", "aria-label": alt or title, "width": width, "height": height}
    )
    return InlinePicture(Markup(ET.tostring(clean, encoding="unicode")), title)  # noqa: S704  # escaped by tostring


def _local(name: str) -> str:
    """A name without its namespace, which HTML knows by itself."""
    return name.rpartition("}")[2]


def _copy(element: ET.Element, prefix: str) -> ET.Element:
    copied = ET.Element(_local(element.tag))
    copied.text = element.text if copied.tag in ("text", "tspan") else None
    for name, value in element.attrib.items():
        short = _local(name)
        if short not in _ATTRIBUTES:
            continue
        if short == "id":
            copied.set("id", prefix + value)
        elif short == "href":
            if value.startswith("#"):
                copied.set("href", f"#{prefix}{value[1:]}")
        elif short == "clip-path":
            copied.set("clip-path", value.replace("url(#", f"url(#{prefix}"))
        elif short == "style":
            copied.set("style", _styled(value))
        else:
            copied.set(short, " ".join(_LONG.sub(lambda found: f"{float(found[0]):.2f}", value).split()))
    for child in element:
        if isinstance(child.tag, str) and _local(child.tag) in _ELEMENTS:
            copied.append(_copy(child, prefix))
    return copied


def _styled(style: str) -> str:
    """A style in the page's colours and letters; of the letters only the size stays."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in ("font", "font-size"):
            size = _FONT_SIZE.search(value)
            if size:
                kept.append(f"font-size:{size[0]}")
        elif name and not name.startswith("font") and "url(" not in value:
            kept.append(f"{name}:{_COLOR.sub(_variable, value)}")
    return ";".join(kept)


def _variable(found: re.Match[str]) -> str:
    name = VARIABLES.get(found[0])
    return f"var(--{name})" if name else found[0]
