"""Figures: text stays text, colours follow the page, ticks are plain, no curve is lost."""

import re
from importlib.resources import files

import pytest

from widthwise.reporting.figures import DASHES, MARKERS, PALETTE, draw

CSS = files("widthwise.reporting").joinpath("page.css").read_text(encoding="utf-8")


def panel(series, x_label="width", x_scale="log", y_scale="log"):
    return {"title": "Gap", "x_label": x_label, "y_label": "gap", "series": series,
            "x_scale": x_scale, "y_scale": y_scale}  # fmt: skip


def curve(label="gap", x=(64, 256, 1024), y=(0.4, 0.2, 0.1), **rest):
    return {"label": label, "x": list(x), "y": list(y), "low": None, "high": None,
            "style": "line"} | rest  # fmt: skip


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_ticks_of_widths_are_the_widths():
    found = texts(draw(panel([curve()]), "a"))
    assert found[:3] == ["64", "256", "1024"] and "0.1" in found
    assert not any("10^" in text or "mathdefault" in text for text in found)


def test_widths_too_near_for_their_labels_give_way():
    found = texts(draw(panel([curve(x=(64, 65, 1024))]), "a"))
    assert "1024" in found and ("64" in found) != ("65" in found)


def test_text_is_text_and_colours_are_the_pages():
    svg = draw(panel([curve(), curve("limit", style="dashed")]), "a")
    assert {"Gap", "gap", "limit", "width"} <= set(texts(svg))
    assert "currentColor" in svg and "#000000" not in svg and "#ffffff" not in svg
    assert "var(--curve-1" in svg and "var(--curve-2" in svg
    assert "font-family" not in svg and "DejaVu" not in svg and "<image" not in svg


def test_same_panel_same_svg_and_other_names_other_ids():
    series = [curve(low=[0.3, 0.1, 0.05], high=[0.5, 0.3, 0.2], style="points")]
    one, again, other = (draw(panel(series), name) for name in ("a", "a", "b"))
    assert one == again
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]*)"', one)) <= ids[0]


@pytest.mark.parametrize("style", ["line", "points", "dashed"])
def test_gaps_zeros_and_empty_bars_are_survived(style):
    series = [
        curve(y=(None, 0.0, 0.1), low=[None, None, -0.1], high=[None, None, None], style=style),
        curve("nothing", x=(), y=(), style=style),
        curve("_hidden", y=(None, None, None), style=style),
    ]
    for scale in ("log", "linear"):
        svg = draw(panel(series, y_scale=scale), "a")
        assert "nan" not in svg.lower() and "inf" not in svg.lower()


def test_nothing_to_draw_says_so():
    for series in ([], [curve(y=(None, None, None))]):
        assert "no points" in texts(draw(panel(series), "a"))


def test_label_with_underscore_dollar_and_length_is_kept():
    labels = ["_hidden", "$5 and $6", "word " * 30]
    found = texts(draw(panel([curve(label) for label in labels]), "a"))
    assert {"_hidden", "$5 and $6"} <= set(found)
    assert all(len(text) <= 48 for text in found)


def test_infinite_member_has_the_colour_of_its_family():
    series = [curve("NTK, Adam"), curve("NTK, Adam, width ∞", style="dashed"), curve("MuP, Adam")]
    svg = draw(panel(series), "a")
    assert "var(--curve-2" in svg and "var(--curve-3" not in svg


def test_every_curve_colour_stands_out_on_both_papers():
    light, dark = CSS.split("@media (prefers-color-scheme: dark)")
    assert len(PALETTE) == len(MARKERS) and len(DASHES) > 3
    for theme, paper in ((light, "#ffffff"), (dark.split("}\n}")[0], "#14171b")):
        assert f"--paper: {paper}" in theme
        colours = dict(re.findall(r"--(curve-\d|ink|soft|accent|open): (#\w{6})", theme))
        assert len([name for name in colours if "curve" in name]) == len(PALETTE)
        for name, colour in colours.items():
            assert contrast(colour, paper) >= (4.5 if "curve" not in name else 3.5), (name, colour)
    assert tuple(re.findall(r"--curve-\d: (#\w{6})", light)) == PALETTE


def contrast(one: str, other: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
