from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from components.reports.svg import COLORS, INK, picture


def draw(axes: list) -> None:  # type: ignore[type-arg]
    axes[0].plot([1, 2], [3, 4], color=COLORS[1], label="a <b> $x$ 漢字")
    axes[0].text(1, 3, "note", color=INK)
    axes[0].legend()


def test_markup_stands_alone_in_a_page() -> None:
    svg = picture("Title", 'alt "quoted" <tag>', draw).svg
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'alt "quoted" <tag>'
    assert "width" not in root.attrib
    for unwanted in ("http", "xmlns", "<metadata", "<style", "font-family", "<?xml"):
        assert unwanted not in svg, unwanted


def test_colors_are_variables_of_the_page() -> None:
    svg = picture("Title", "alt", draw).svg
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert COLORS[1] not in svg
    assert INK not in svg


def test_text_is_text_and_escaped() -> None:
    svg = picture("Title", "alt", draw).svg
    assert "a &lt;b&gt; $x$ 漢字" in svg


def test_the_same_picture_gives_the_same_bytes_and_other_ids_than_another() -> None:
    first, again, other = (picture(title, "alt", draw).svg for title in ("One", "One", "Two"))
    assert first == again

    def ids(svg: str) -> set[str]:
        return {node.attrib["id"] for node in ElementTree.fromstring(svg).iter() if "id" in node.attrib}

    assert ids(first)
    assert not ids(first) & ids(other)
