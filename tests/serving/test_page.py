"""The web page: what a visitor sends is read, answered and forgotten; nothing is loaded from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from factories import picture
from PIL import Image
from serving.served import SETTINGS, serving, tiny_generator
from serving.test_uploads import bomb

from mmi.serving.access import LOOPBACK, PAGE_POLICY, Guard
from mmi.serving.answering import Answerer
from mmi.serving.limits import Limits
from mmi.serving.page_app import NoFetching, build_page_app, private_folder

pytest.importorskip("gradio", reason='the page needs gradio: pip install "mmi[demo]"', exc_type=ImportError)
LIMITS = Limits(picture_pixels=1_000_000, new_tokens=24, sampling_steps=250)
TIMEOUT = 60_000


class Shown:
    """A page under test."""

    def __init__(self, port: int, folder: Path, visits, answerer: Answerer) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.port = port
        self.folder = folder
        self.visits = visits
        self.answerer = answerer

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def files(self) -> list[Path]:
        """Files with something in them that lie in the private folder."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.stat().st_size]


@contextmanager
def show(token: str | None = None):
    with private_folder() as folder:
        from mmi.serving.page import Page, PageFacts
        from mmi.serving.pngs import Provenance
        from mmi.serving.uploads import UploadFolders
        from mmi.serving.visits import Visits

        answerer = Answerer(tiny_generator(), LIMITS)
        visits = Visits(UploadFolders(folder), answerer.forget)
        facts = PageFacts("tiny", "No safety checker: every drawn picture is shown as it is.", ("Say hello.",))
        app = build_page_app(Page(answerer, SETTINGS, visits, Provenance(answerer.generator), facts), LIMITS)
        guarded = Guard(app, token=token, hosts=LOOPBACK, policy=PAGE_POLICY, takes_cookie=True)
        try:
            with serving(guarded) as port:
                yield Shown(port, folder, visits, answerer)
        finally:
            answerer.engine.stop()
    assert not folder.exists()


@pytest.fixture(scope="module")
def shown():
    with show() as page:
        yield page


def test_the_page_loads_nothing_from_outside(shown):
    status, headers, body = shown.get("/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']([^\"']+)", body.decode())
    assert loaded
    assert not [url for url in loaded if "//" in url and not url.startswith(shown.url)]
    assert shown.get("/", Host="evil.example")[0] == 403


def test_doors_to_other_places_are_closed(shown):
    doors = ("file=http://127.0.0.1:1/a", "file=https%3A//x/a", "file/http://127.0.0.1:1/a", "proxy=http://x/a")
    for door in (*doors, "file=/etc/passwd"):
        assert shown.get(f"/gradio_api/{door}")[0] in (403, 404), door
    assert shown.get("/docs")[0] == 404


def test_an_address_in_place_of_an_upload_is_refused():
    asked = []

    async def app(scope, receive, send):
        asked.append(await receive())

    async def ask(body: bytes) -> list:
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
        await NoFetching(app, Limits(json_bytes=1000))(scope, receive, send)
        return sent

    import asyncio

    bad = json.dumps({"data": [[{"path": "http://127.0.0.1:1/secret", "meta": {"_type": "gradio.FileData"}}]]})
    assert asyncio.run(ask(bad.encode()))[0]["status"] == 403
    assert not asked
    good = json.dumps({"data": ["look at http://example.org", {"path": "/tmp/a.png", "url": "http://127.0.0.1/a"}]})
    asyncio.run(ask(good.encode()))
    assert asked[0]["body"] == good.encode()
    assert asyncio.run(ask(b" " * 1001))[0]["status"] == 413


def test_a_token_opens_the_page_once_and_leaves_the_address():
    with show(token="correct-horse-battery") as page:
        assert page.get("/")[0] == 401
        assert page.get("/?token=wrong")[0] == 401
        status, headers, _ = page.get("/?token=correct-horse-battery&a=b")
        assert (status, headers["location"]) == (303, "/?a=b")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert page.get("/", Cookie=cookie.partition(";")[0])[0] == 200
        assert page.get("/", Cookie="mmi_token=wrong")[0] == 401


def chromium() -> str:
    found = os.environ.get("MMI_CHROMIUM") or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium here; name one by MMI_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed", exc_type=ImportError)
    path = chromium()
    with api.sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        own = play.chromium.launch(executable_path=path, args=arguments)
        yield own
        own.close()


class Tab:
    """One open page, used as a person does."""

    def __init__(self, browser, shown: Shown) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(shown.url)
        self.page.wait_for_selector("#send")

    def add(self, *files: Path) -> None:
        self.page.set_input_files("input[type=file]", [str(file) for file in files])

    def pending(self, n: int) -> None:
        self.page.wait_for_function(f"() => document.querySelectorAll('#pending img').length === {n}")

    def say(self, text: str) -> None:
        self.page.fill("#said textarea", text)
        self.page.click("#send")

    def status(self, words: str) -> None:
        self.page.wait_for_function("words => document.querySelector('#status').innerText.includes(words)", arg=words)

    def least(self, n: int) -> None:
        box = self.page.get_by_label("number input for Pictures in the answer, at least")
        box.fill(str(n))
        box.press("Tab")

    def pictures(self) -> list[str]:
        return [image.get_attribute("alt") for image in self.page.query_selector_all("#conversation img")]

    def answers(self, n: int) -> None:
        self.page.wait_for_function(
            f"() => document.querySelectorAll('#conversation .bot.message, #conversation .message.bot').length >= {n}"
        )
        self.status("Ready")


@pytest.fixture
def files(tmp_path):
    for number in (1, 2):
        exif = Image.Exif()
        exif[0x010E] = "taken at home"
        picture(number, 64).save(tmp_path / f"photo{number}.jpg", exif=exif)
    (tmp_path / "wrong.png").write_bytes(b"this is no picture")
    (tmp_path / "notes.txt").write_text("neither is this")
    (tmp_path / "huge.png").write_bytes(bomb(20_000, 10_000))
    return tmp_path


@pytest.mark.slow
def test_two_photographs_a_question_a_picture_and_the_overlay(shown, browser, files):
    tab = Tab(browser, shown)
    tab.add(files / "photo1.jpg", files / "photo2.jpg")
    tab.pending(2)
    tab.say("what is this?")
    tab.answers(1)
    tab.least(1)
    tab.say("and then?")
    tab.page.wait_for_selector("#conversation img[alt='Picture 1 drawn by the model']")
    tab.status("Ready")
    assert tab.pictures() == ["Picture 1 you sent", "Picture 2 you sent", "Picture 1 drawn by the model"]
    tab.page.click("#looking button")
    tab.page.click("#show-points")
    overlay = tab.page.wait_for_selector("#overlay img")
    assert overlay.get_attribute("alt").startswith("Sampling points on the pictures")
    assert overlay.bounding_box()["width"] > 100
    # Nothing of the photographs' files is left but pixels, and nothing was asked of anyone else.
    kept = shown.files()
    assert kept
    assert not [path for path in kept if b"taken at home" in path.read_bytes()]
    assert not [url for url in tab.asked if not url.startswith((shown.url, "data:", "blob:"))]
    assert not tab.errors
    tab.page.close()
    wait_for(lambda: not shown.files())
    assert len(shown.visits) == 0


@pytest.mark.slow
def test_what_goes_wrong_is_said_and_the_page_lives_on(shown, browser, files):
    tab = Tab(browser, shown)
    tab.say("")
    tab.status("Write something or add a picture")
    tab.add(files / "wrong.png")
    tab.status("is no picture that can be read")
    tab.add(files / "huge.png")
    tab.status("million pixels; at most 1 million are read")
    tab.add(files / "notes.txt")
    tab.page.wait_for_timeout(500)
    assert not tab.page.query_selector_all("#pending img")
    tab.add(files / "photo1.jpg")
    tab.pending(1)
    tab.say("still there?")
    tab.answers(1)
    assert not tab.errors
    tab.page.close()
    wait_for(lambda: not shown.files())


@pytest.mark.slow
def test_two_tabs_at_once_have_conversations_of_their_own(shown, browser, files):
    one, two = Tab(browser, shown), Tab(browser, shown)
    for tab in (one, two):
        tab.add(files / "photo1.jpg")
        tab.pending(1)
        tab.least(1)
    one.page.fill("#said textarea", "first tab")
    two.page.fill("#said textarea", "second tab")
    one.page.click("#send")
    two.page.click("#send")
    for tab, own, other in ((one, "first tab", "second tab"), (two, "second tab", "first tab")):
        tab.page.wait_for_selector("#conversation img[alt='Picture 1 drawn by the model']")
        tab.status("Ready")
        told = tab.page.inner_text("#conversation")
        assert own in told
        assert other not in told
    one.page.close()
    wait_for(lambda: len(shown.visits) == 1)
    # The other tab keeps what it sent, though the file was the same.
    two.say("go on")
    two.answers(2)
    two.page.close()
    wait_for(lambda: not shown.files())


@pytest.mark.slow
def test_a_page_that_is_closed_stops_its_picture(shown, browser, files):
    tab = Tab(browser, shown)
    tab.least(1)
    steps = tab.page.get_by_label("number input for Sampling steps of a picture")
    steps.fill("100")
    steps.press("Tab")
    left = shown.answerer.measurements.total("answers", {"end": "left"})
    tab.say("draw for long")
    wait_for(lambda: shown.answerer.engine.busy)
    tab.page.close()
    assert shown.answerer.engine.wait_until_idle(30)
    assert shown.answerer.measurements.total("answers", {"end": "left"}) == left + 1
    wait_for(lambda: len(shown.visits) == 0)
    assert not shown.files()


def wait_for(holds, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)
