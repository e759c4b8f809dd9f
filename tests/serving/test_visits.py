"""Visitors of the page: what is kept for them goes when they do."""

from __future__ import annotations

from mmi.serving.uploads import UploadFolders
from mmi.serving.visits import Visits


def test_what_was_computed_for_a_page_is_forgotten_with_it(tmp_path):
    forgotten: list[str] = []
    visits = Visits(UploadFolders(tmp_path), forgotten.append, most=2)
    for name in ("one", "two", "three"):
        visits.of(name)
    assert forgotten == ["one"]
    visits.begin_anew("two")
    visits.leave("three")
    assert forgotten == ["one", "two", "three"]
