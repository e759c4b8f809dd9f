"""Answers over HTTP are the model's own, limits hold, and a client that leaves frees the model."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from factories import picture
from PIL import Image
from serving.served import SETTINGS, data_url, serve_tiny, tiny_generator, user

from mmi.models.generation import GenerationSettings
from mmi.serving.events import WITHHELD
from mmi.serving.limits import Limits
from mmi.serving.measurements import resident_bytes
from mmi.serving.session import Session


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


@pytest.fixture(scope="module")
def served(generator):
    with serve_tiny(Limits(new_tokens=24, new_images=2, pictures=3, picture_pixels=10_000), generator=generator) as it:
        yield it


def direct(generator, prompt, settings: GenerationSettings) -> list:
    return [shown(piece) for piece in generator.generate(prompt, settings)]


def shown(piece):
    return piece if isinstance(piece, str) else np.asarray(piece).tolist()


def answered(content) -> list:
    """The pieces of an answer: texts, and pictures as pixels."""
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] if part["type"] == "text" else pixels_of(part) for part in content]


def pixels_of(part) -> list:
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data))).tolist()


def test_an_answer_with_pictures_is_that_of_the_model_itself(served, generator):
    status, _, got = served.chat({"messages": [user(picture(1), "once")], "min_images": 1, "max_images": 2, "seed": 5})
    assert status == 200
    expected = direct(generator, [picture(1), "once"], replace(SETTINGS, min_images=1, max_images=2, seed=5))
    assert answered(got["choices"][0]["message"]["content"]) == expected
    assert any(isinstance(piece, list) for piece in expected)
    assert got["usage"]["completion_tokens_details"]["images"] == sum(isinstance(p, list) for p in expected)
    assert got["choices"][0]["finish_reason"] in ("stop", "length")


def test_an_answer_in_words_alone_is_a_plain_string(served, generator):
    _, _, got = served.chat({"messages": [{"role": "user", "content": "once"}], "max_images": 0})
    assert [got["choices"][0]["message"]["content"]] == direct(generator, ["once"], replace(SETTINGS, max_images=0))


def test_a_streamed_answer_is_the_whole_one_in_parts(served):
    fields = {"messages": [user(picture(1), "once")], "min_images": 1, "seed": 5}
    _, _, whole = served.chat(fields)
    events = served.stream(fields)
    assert events[-1] == "data: [DONE]"
    assert any(isinstance(e, str) and e.startswith(": drawing picture 1, step 1 of 2") for e in events)
    pieces: list = []
    for event in events:
        if isinstance(event, dict):
            delta = event["choices"][0]["delta"]
            pieces += [pixels_of(part) for part in delta.get("images", ())]
            if delta.get("content"):
                joins = pieces and isinstance(pieces[-1], str)
                pieces = [*pieces[:-1], pieces[-1] + delta["content"]] if joins else [*pieces, delta["content"]]
    assert pieces == answered(whole["choices"][0]["message"]["content"])
    last = next(e for e in reversed(events) if isinstance(e, dict))
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


@pytest.mark.parametrize("fewest", [0, 1], ids=["text", "picture"])
def test_the_next_turn_reads_only_what_is_new_and_goes_on_as_a_session_does(generator, fewest):
    with serve_tiny(generator=generator) as served:
        asked = [user(picture(1), "once")]
        _, _, first = served.chat({"messages": asked, "min_images": fewest, "max_images": fewest})
        assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        said = first["choices"][0]["message"]
        fields = {"messages": [*asked, said, user("then")], "min_images": 1, "seed": 3}
        _, _, second = served.chat(fields)
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > first["usage"]["prompt_tokens"]
    session = Session(generator)
    session.append(picture(1))
    session.append("once")
    list(session.go_on(replace(SETTINGS, min_images=fewest, max_images=fewest)))
    session.close_turn()
    session.append("then")
    expected = [shown(piece) for piece in session.go_on(replace(SETTINGS, min_images=1, seed=3))]
    assert answered(second["choices"][0]["message"]["content"]) == expected


def test_an_answer_does_not_depend_on_whether_the_turn_before_was_kept(generator):
    asked = [user(picture(1), "once")]
    with serve_tiny(generator=generator) as served:
        _, _, first = served.chat({"messages": asked, "max_images": 0})
        said = first["choices"][0]["message"]
        fields = {"messages": [*asked, said, user("then")], "min_images": 1, "seed": 3}
        _, _, kept = served.chat(fields)
        # Told twice, a conversation may go on in two ways.
        _, _, other = served.chat({**fields, "seed": 4})
        assert other["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    with serve_tiny(generator=generator) as fresh:
        _, _, cold = fresh.chat(fields)
        assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert cold["usage"]["prompt_tokens"] == kept["usage"]["prompt_tokens"]
    pieces = [answered(got["choices"][0]["message"]["content"]) for got in (kept, cold)]
    assert len(pieces[0]) == len(pieces[1]) == 3
    for one, other in zip(*pieces, strict=True):
        # In one pass or in two, sums are rounded differently.
        assert one == other if isinstance(one, str) else np.abs(np.subtract(one, other)).max() <= 1


def test_nobody_learns_from_the_cache_what_another_has_asked(generator):
    messages = [user("secret")]
    with serve_tiny(generator=generator) as served:
        _, _, first = served.chat({"messages": messages, "max_images": 0, "user": "one"})
        fields = {"messages": [*messages, first["choices"][0]["message"], user("then")], "max_images": 0}

        def cached(more: dict, **headers: str) -> int:
            _, _, got = served.chat({**fields, **more}, **headers)
            return got["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert cached({"user": "two"}) == 0
        assert cached({}) == 0
        assert cached({"user": "one"}, Authorization="Bearer other") == 0
        assert cached({"user": "one"}) > 0
        status, _, got = served.chat({**fields, "user": 5})
        assert (status, got["error"]["param"]) == (400, "user")


def test_a_closed_turn_is_read_as_in_training_whether_it_was_kept_or_not(generator):
    messages = [user("ab"), {"role": "assistant", "content": "cd"}, user("ef")]
    with serve_tiny(generator=generator) as served:
        _, _, got = served.chat({"messages": messages, "max_images": 0})
    ids = [1, *generator.tokenizer.encode("ab cd"), 2, *generator.tokenizer.encode("ef")]
    assert got["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "messages is missing"),
        ({"messages": [user("a")], "max_token": 3}, '"max_token" is unknown'),
        ({"messages": [user("a")], "max_tokens": 25}, "at most 24"),
        ({"messages": [user("a")], "max_images": 3}, "at most 2"),
        ({"messages": [user("a")], "image_steps": 10**6}, "at most 250"),
        ({"messages": [user("a")], "temperature": -1}, "temperature is -1"),
        ({"messages": [user("a")], "n": 2}, "expected 1"),
        ({"messages": [user(*[picture(0)] * 4)]}, "one picture too many"),
        ({"messages": [user(picture(0, 101))]}, "million pixels"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0]"),
        ({"messages": [user("a"), {"role": "assistant", "content": "b"}]}, "the last message"),
        ({"messages": [user("a" * 600)]}, "the context is full"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_refused_in_one_sentence(served, fields, says):
    status, _, got = served.chat(fields)
    assert status == 400
    assert says in got["error"]["message"]
    assert "\n" not in got["error"]["message"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "https://example.org/a.png", "file:///etc/passwd", "ftp://x/", "/etc/passwd"]
)
def test_nothing_is_fetched_for_a_client(served, url, monkeypatch):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    status, _, got = served.chat({"messages": [{"role": "user", "content": content}]})
    assert status == 400
    assert "this server fetches nothing" in got["error"]["message"]


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not():
    with serve_tiny(Limits(body_bytes=1000)) as served:
        told = {"Content-Type": "application/json"}
        status, _, got = served.request("POST", "/v1/chat/completions", b" " * 1001, told)
        assert (status, json.loads(got)["error"]["code"]) == (413, "over_limit")
        with socket.create_connection(("127.0.0.1", served.port)) as own:
            own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
            own.sendall(b"Content-Type: application/json\r\n\r\n" + b"400\r\n" + b" " * 1024 + b"\r\n")
            assert b"413" in own.recv(100)


def test_a_request_that_does_not_arrive_is_given_up():
    with serve_tiny(Limits(body_seconds=1)) as served, socket.create_connection(("127.0.0.1", served.port)) as own:
        own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
        own.sendall(b"Content-Type: application/json\r\n\r\n{")
        own.settimeout(10)
        assert b"408" in own.recv(100)


def test_routes_types_and_hosts(served):
    assert served.request("GET", "/health")[0] == 200
    assert served.request("GET", "/ready")[0] == 200
    status, _, body = served.request("GET", "/v1/models")
    entry = json.loads(body)["data"][0]
    assert (status, entry["id"], entry["safety_checker"]) == (200, "tiny", "none")
    assert served.request("GET", "/v1/nothing")[0] == 404
    assert served.request("GET", "/v1/chat/completions")[0] == 405
    assert served.request("POST", "/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})[0] == 415
    # A name that a web site made up for this machine gets no answer.
    assert served.request("GET", "/v1/models", headers={"Host": "evil.example"})[0] == 403
    status, _, got = served.chat({"messages": [user("a")], "model": "tinny"})
    assert (status, got["error"]["code"]) == (404, "model_not_found")


def test_measurements_count_what_happened(served):
    served.chat({"messages": [user("count me")], "max_images": 0})
    status, headers, body = served.request("GET", "/metrics")
    lines = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(lines['mmi_requests_total{route="/v1/chat/completions",status="200"}']) >= 1
    assert int(lines["mmi_text_tokens_total"]) >= 1
    assert int(lines["mmi_answer_seconds_count"]) >= 1
    assert float(lines["mmi_memory_bytes"]) > 1e7
    assert lines["mmi_busy"] == "0"


def test_a_token_is_asked_for_everywhere_but_at_health():
    with serve_tiny(token="correct-horse-battery") as served:
        assert served.request("GET", "/health")[0] == 200
        assert served.request("GET", "/metrics")[0] == 401
        assert served.chat({"messages": [user("a")]})[0] == 401
        assert served.chat({"messages": [user("a")]}, Authorization="Bearer wrong")[0] == 401
        assert served.request("GET", "/v1/models?token=correct-horse-battery")[0] == 401
        assert served.chat({"messages": [user("a")]}, Authorization="Bearer correct-horse-battery")[0] == 200


def test_a_flagged_picture_is_never_sent(generator):
    with serve_tiny(is_unsafe=lambda image: True, generator=generator) as served:
        _, _, got = served.chat({"messages": [user("a")], "min_images": 1, "max_images": 1})
        assert "held back" in json.dumps(got)
        assert "data:image" not in json.dumps(got)
        assert served.answerer.measurements.total("flagged_pictures") == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_sentence_in_place_of_a_flagged_picture_is_not_read_back(generator, stream):
    fields = {"messages": [user("a")], "min_images": 1, "max_images": 1}
    with serve_tiny(is_unsafe=lambda image: True, generator=generator) as served:
        if stream:
            deltas = [e["choices"][0]["delta"] for e in served.stream(fields) if isinstance(e, dict)]
            content = "".join(delta.get("content", "") for delta in deltas)
        else:
            content = served.chat(fields)[2]["choices"][0]["message"]["content"]
        assert WITHHELD in content
        written = [text.strip() for text in content.split(WITHHELD)]

        def tokens(said) -> int:
            messages = [user("a"), {"role": "assistant", "content": said}, user("then")]
            _, _, got = served.chat({"messages": messages, "max_images": 0})
            assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
            return got["usage"]["prompt_tokens"]

        encode = generator.tokenizer.encode
        n_written = len([1, *encode("a " + " ".join(written)), 2, *encode("then")])
        assert tokens(content) == n_written
        assert tokens([{"type": "text", "text": text} for text in (written[0], WITHHELD)]) <= n_written
        # Where nothing else was said, there was no turn; said by a user, it is a text like any other.
        assert tokens(WITHHELD) == len([1, *encode("a then")])
        _, _, got = served.chat({"messages": [user(WITHHELD)], "max_images": 0})
        assert got["usage"]["prompt_tokens"] == len([1, *encode(WITHHELD)])


def leave_after(served, fields, seconds: float) -> None:
    """Send a request and hang up."""
    body = json.dumps(fields).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as own:
        own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        own.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(seconds)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_stops_its_picture(generator, stream):
    long = {"messages": [user("draw")], "min_images": 1, "max_images": 1, "image_steps": 250, "stream": stream}
    with serve_tiny(generator=generator) as served:
        before = time.monotonic()
        served.chat({**long, "image_steps": 25, "stream": False})
        alone = (time.monotonic() - before) * 10
        before = time.monotonic()
        leave_after(served, long, 0.3)
        assert served.answerer.engine.wait_until_idle(30)
        assert time.monotonic() - before < 0.3 + alone / 2
        assert served.answerer.measurements.total("answers", {"end": "left"}) == 1
        assert served.chat({"messages": [user("next")], "max_images": 0})[0] == 200


def test_a_full_queue_says_when_to_come_back():
    long = {"messages": [user("draw")], "min_images": 1, "max_images": 1, "image_steps": 250}
    with serve_tiny(Limits(queue_length=1)) as served, ThreadPoolExecutor(2) as pool:
        leaving = threading.Event()

        def hold() -> None:
            body = json.dumps(long).encode()
            with socket.create_connection(("127.0.0.1", served.port)) as own:
                own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
                own.sendall(
                    b"Content-Type: application/json\r\n" + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
                )
                leaving.wait(20)

        held = [pool.submit(hold)]
        wait_for(lambda: served.answerer.engine.busy)
        held.append(pool.submit(hold))
        wait_for(lambda: served.answerer.engine.n_waiting == 1)
        assert served.request("GET", "/ready")[0] == 503
        status, headers, got = served.chat({"messages": [user("me too")]})
        leaving.set()
        for each in held:
            each.result(20)
    assert (status, got["error"]["code"]) == (503, "busy")
    assert int(headers["retry-after"]) >= 1


def test_nothing_is_decoded_for_a_client_that_is_sent_away(monkeypatch):
    decoded = []
    monkeypatch.setattr("mmi.serving.chat_format.read_picture", lambda *given: decoded.append(given) or picture(0))
    let_go = threading.Event()
    fields = {"messages": [user(picture(1), "once")], "max_images": 0}
    with serve_tiny(Limits(per_client=1, queue_length=1)) as served:
        engine = served.answerer.engine
        engine.submit(lambda ticket: let_go.wait(20), lambda event: None, "127.0.0.1")
        wait_for(lambda: engine.busy)
        assert served.chat(fields)[0] == 429
        engine.submit(lambda ticket: let_go.wait(20), lambda event: None, "another")
        assert served.chat(fields)[0] in (429, 503)
        # Its place may be lost while its body is on the way.
        let_go.set()
        assert engine.wait_until_idle(20)
        body = json.dumps(fields).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as own:
            own.settimeout(20)
            own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            own.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
            time.sleep(0.2)
            assert engine.n_waiting == 0, "who has not sent its request holds a place"
            let_go.clear()
            engine.submit(lambda ticket: let_go.wait(20), lambda event: None, "127.0.0.1")
            own.sendall(body[100:])
            assert b"429" in own.recv(100)
        let_go.set()
    assert not decoded


def test_one_client_may_have_so_many_requests_on_the_way():
    with serve_tiny(Limits(per_client=1)) as served, socket.create_connection(("127.0.0.1", served.port)) as own:
        own.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        own.sendall(b"Content-Length: 100\r\n\r\n{")
        wait_for(lambda: served.chat({"messages": [user("a")]})[0] == 429)
        own.close()
        wait_for(lambda: served.chat({"messages": [user("a")], "max_images": 0})[0] == 200)


def test_what_takes_too_long_is_a_timeout():
    with serve_tiny(Limits(request_seconds=1, new_images=50)) as served:
        long = {"messages": [user("draw")], "min_images": 50, "image_steps": 250, "max_tokens": 1}
        status, _, got = served.chat(long)
        assert status == 504, "the network is too fast for this test; ask for more"
        assert got["error"]["code"] == "too_late"
        assert served.answerer.engine.wait_until_idle(5)


def wait_for(holds) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run_clients(served, generator, seconds: float) -> dict[str, int]:
    """Let 8 clients ask in parallel, and check each answer against the model's own; return counts."""
    prompts = [([picture(k, 32 + 8 * k), f"prompt {k}"], {"seed": k, "min_images": k % 2}) for k in range(4)]
    expected = [direct(generator, p, replace(SETTINGS, **chosen)) for p, chosen in prompts]
    end = time.monotonic() + seconds
    counts = {"right": 0, "turns": 0, "left": 0, "refused": 0}
    lock = threading.Lock()

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            k = turn % len(prompts)
            prompt, chosen = prompts[k]
            fields = {"messages": [user(*prompt)], **chosen}
            if number == 7:
                leave_after(served, {**fields, "min_images": 1, "image_steps": 100}, 0.05)
                kind = "left"
            elif number == 6:
                status, _, _ = served.chat({**fields, "max_tokens": 10**6})
                assert status == 400
                kind = "refused"
            else:
                _, _, got = served.chat(fields)
                said = got["choices"][0]["message"]
                assert answered(said["content"]) == expected[k]
                kind = "right"
                if turn % 3 == 0:
                    status, _, got = served.chat({"messages": [user(*prompt), said, user("go on")], "max_images": 0})
                    assert status == 200
                    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
                    kind = "turns"
            with lock:
                counts[kind] += 1
            turn += 1

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(client, number) for number in range(8)]:
            done.result()
    return counts


def check_parallel_clients(generator, seconds: float, most_growth: float) -> dict[str, int]:
    with serve_tiny(Limits(kept_sessions=16), generator=generator) as served:
        run_clients(served, generator, min(2.0, seconds / 2))
        assert served.answerer.engine.wait_until_idle(20)
        before = resident_bytes()
        counts = run_clients(served, generator, seconds)
        assert served.answerer.engine.wait_until_idle(20)
        growth = resident_bytes() - before
        measured = served.answerer.measurements
        assert measured.total("answers", {"end": "failed"}) == 0
        assert measured.total("answers", {"end": "left"}) >= counts["left"] / 2
    assert min(counts.values()) > 0
    assert growth < most_growth, f"memory grew by {growth / 1e6:.1f} MB in {counts}"
    return {**counts, "growth": int(growth)}


def test_eight_parallel_clients_are_all_answered_right(generator):
    check_parallel_clients(generator, 2.0, 60e6)


@pytest.mark.slow
def test_eight_parallel_clients_for_a_minute_leave_memory_flat(generator):
    counts = check_parallel_clients(generator, float(os.environ.get("MMI_CLIENT_SECONDS", "60")), 60e6)
    print(counts)


def test_pictures_come_back_without_loss(served):
    """What was drawn is recognised when it is sent back, however often it was encoded."""
    url = data_url(picture(3))
    again = data_url(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    assert url == again
