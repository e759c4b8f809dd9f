"""Visitors of the page: what is kept for them goes when they do."""

from __future__ import annotations

from factories import picture
from PIL import Image

from mmi.commands.png_metadata import read_record
from mmi.models.generation import GenerationSettings
from mmi.serving.conversation import Message, key_of, prompt_of
from mmi.serving.events import PicturePart, TextPart
from mmi.serving.pngs import PictureRecord
from mmi.serving.uploads import Picture, UploadFolders
from mmi.serving.visits import GrowingAnswer, Visits


def test_what_was_computed_for_a_page_is_forgotten_with_it(tmp_path):
    forgotten: list[str] = []
    visits = Visits(UploadFolders(tmp_path), forgotten.append, most=2)
    for name in ("one", "two", "three"):
        visits.of(name)
    assert forgotten == ["one"]
    visits.begin_anew("two")
    visits.leave("three")
    assert forgotten == ["one", "two", "three"]


def test_a_picture_that_is_held_back_is_no_text_of_the_model(tmp_path):
    visit = Visits(UploadFolders(tmp_path), lambda name: None).of("page")
    record = PictureRecord("", "trained", None, False, GenerationSettings(), 0, "")
    answer = GrowingAnswer(record, visit.records)
    answer.add(PicturePart(None, 0))
    answer.add(TextPart("so", begins=True))
    visit.messages += [Message("user", ("a",)), Message("assistant", tuple(answer.parts))]
    assert visit.before_answer() == (["a"], "so")
    assert key_of(visit.messages) == key_of([Message("user", ("a",)), Message("assistant", ("so",))])
    assert prompt_of(visit.messages) == ["a", "so", None]


def test_a_drawn_picture_is_shown_as_it_was_drawn_with_its_record(tmp_path):
    visits = Visits(UploadFolders(tmp_path), lambda name: None)
    visit = visits.of("page")
    record = PictureRecord("a" * 64, "trained", None, False, GenerationSettings(seed=7), 0, "b" * 64)
    answer = GrowingAnswer(record, visit.records)
    for number in range(2):
        answer.add(PicturePart(picture(number), 7 + number))
    shown = [visits.file_of(visit, part) for part in answer.parts if isinstance(part, Picture)]
    assert [read_record(path).seed for path in shown] == [7, 8]
    assert [Picture.of(read).digest for read in map(Image.open, shown)] == list(visit.records)
