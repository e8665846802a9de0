"""Names of people's runs and problems in pages of HTML."""

import html
import json

import torch

from toydiff.plots import on_screen
from toydiff.studies import demo

NAME = "<img src=x onerror=alert(1)> & a < b"


def test_names_in_figures_are_no_markup():
    figure = on_screen.panels(1, 1, [NAME], NAME, 300)
    on_screen.rings(figure, torch.zeros(1, 2), NAME, 1, 1)
    texts = json.loads(figure.to_json())
    found = [texts["layout"]["title"]["text"], texts["layout"]["annotations"][0]["text"], texts["data"][0]["name"]]
    found.append(texts["data"][0]["hovertemplate"].replace("<extra></extra>", ""))
    for text in found:
        assert html.escape(NAME, quote=False) in text
        assert "<img" not in text
    assert "<img" not in on_screen.page(figure)


def test_names_in_the_demos_page_are_no_markup():
    picture = {"name": NAME, "topic": NAME, "title": NAME, "sentences": [NAME]}
    report = {"pictures": [picture], "deck": NAME, "schedule": NAME, "seed": 0, "seconds": 1, "error": NAME}
    page = demo._index(report)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") == 9
