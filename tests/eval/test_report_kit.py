"""The parts of a page: nothing that is text becomes markup, charts tell their numbers, pictures carry their pixels."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from evaluated_run import EVIL
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmi_eval.report.charts import Bar, Curve, bar_chart, line_chart, running_mean
from mmi_eval.report.markup import code, element, escape, fragment, items, preformatted, text_of
from mmi_eval.report.page import Section, render_page, write_page
from mmi_eval.report.pictures import picture, picture_file
from mmi_eval.report.scales import fit_scale
from mmi_eval.report.tables import Column, table

numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


class Texts(HTMLParser):
    """Collect the tags and the text of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_text_comes_back_as_text_and_makes_no_tag(text):
    page = Texts(element("p", {"title": text}, text).text)
    assert page.tags == ["p"]
    assert page.text == re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]", "\ufffd", text
    )


@given(st.text())
def test_every_builder_escapes(text):
    made = fragment(items(text), code(text), preformatted(text, text), table(text, [Column(text)], [[text]]))
    tags = set(Texts(made.text).tags)
    assert tags <= {"ul", "li", "code", "div", "pre", "table", "caption", "thead", "tbody", "tr", "th"}


def test_escaped_text_can_be_written_as_utf8():
    assert escape("a\ud800b").encode() == "a\ufffdb".encode()


def test_text_of_markup_has_no_tags():
    assert text_of(element("b", {}, EVIL)) == EVIL.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")


@given(st.lists(st.tuples(st.integers(0, 10_000), numbers), max_size=30), st.booleans())
def test_curves_of_any_numbers_give_finite_places(points, smooth):
    drawn = line_chart("a", "t", "y", [Curve("c", sorted(points), smooth=smooth, dots=True)]).text
    assert not re.search(r'"[^"]*\b(nan|inf)\b', drawn)
    places = re.findall(r'points="([^"]*)"', drawn)
    for x, y in (pair.split(",") for place in places for pair in place.split()):
        assert 0 <= float(x) <= 720
        assert 0 <= float(y) <= 300


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=8))
def test_bars_of_any_numbers_stay_in_the_drawing(values):
    drawn = bar_chart("a", "t", [Bar("b", v, low, high, low) for v, low, high in values]).text
    assert not re.search(r'(x1|x2|width|x)="(nan|inf)', drawn)
    assert all(0 <= float(w) <= 720 for w in re.findall(r'<rect[^>]* width="([^"]*)"', drawn))


def test_a_chart_says_its_numbers_in_words():
    drawn = line_chart("a", "Text loss", "loss", [Curve("training", [(1, 4.0), (2, 1.0), (3, 2.0)])]).text
    assert 'role="img" aria-labelledby="a-title a-words"' in drawn
    assert "training: 4.00 at step 1, 2.00 at step 3, lowest 1.00 at step 2." in drawn
    drawn = bar_chart("b", "t", [Bar("colour", 50, 40, 60, 20)], mark_name="majority").text
    assert "colour: 50.0 [40.0, 60.0], majority 20.0." in drawn


@given(st.lists(st.tuples(st.integers(), st.floats(-1e6, 1e6)), min_size=1), st.integers(1, 9))
def test_a_running_mean_stays_between_the_values(points, window):
    means = [value for _, value in running_mean(points, window)]
    assert len(means) == len(points)
    low, high = min(v for _, v in points), max(v for _, v in points)
    assert all(low - 1e-3 <= value <= high + 1e-3 for value in means)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1), st.booleans())
def test_ticks_lie_inside_the_axis(values, log):
    scale = fit_scale(values, 0, 100, log=log)
    slack = 1e-6 * (abs(scale.low) + abs(scale.high))
    assert scale.ticks()
    assert all(scale.low * 0.99 - slack <= tick <= scale.high * 1.01 + slack for tick in scale.ticks())
    assert all(-1e-6 <= scale.place(value) <= 100 + 1e-6 for value in values)


def test_a_picture_holds_its_pixels_and_is_enlarged_without_blur():
    image = Image.new("RGB", (4, 2), "red")
    made = picture(image, "<alt>", 128).text
    data = re.search(r"base64,([^\"]*)", made)
    assert data is not None
    assert Image.open(io.BytesIO(base64.b64decode(data[1]))).getpixel((3, 1)) == (255, 0, 0)
    assert 'alt="&lt;alt&gt;"' in made
    assert 'width="128" height="64" class="pixels"' in made


@pytest.mark.parametrize(
    "content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\ncut"], ids=["absent", "empty", "text", "cut"]
)
def test_an_unreadable_picture_is_one_line(tmp_path, content):
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    assert "a.png cannot be read" in picture_file(file, "alt").text


def test_a_page_forbids_scripts_and_servers(tmp_path):
    document = render_page(EVIL, [EVIL], [Section("a", EVIL, element("p", {}, EVIL))], EVIL)
    assert "script" not in Texts(document).tags
    assert "default-src &#x27;none&#x27;" in document
    write_page(tmp_path / "x" / "page.html", document)
    assert (tmp_path / "x" / "page.html").read_text(encoding="utf-8") == document
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["page.html"]
