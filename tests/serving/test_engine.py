"""One thread does one thing after the other; who leaves, waits too long or comes too many is told so."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from mmi.config import ConfigError
from mmi.serving.engine import Engine, EngineBusyError
from mmi.serving.events import Failed
from mmi.serving.items import GenerationCancelled
from mmi.serving.limits import Limits


class Step:
    """Work that goes on until it is told to stop, or let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self.steps = 0

    def __call__(self, ticket) -> None:
        self.begun.set()
        while not self.let_go.is_set():
            if ticket.should_stop():
                raise GenerationCancelled
            self.steps += 1
            time.sleep(0.002)


@pytest.fixture
def engine():
    engine = Engine(Limits(queue_length=2, per_client=2, request_seconds=30))
    yield engine
    engine.stop()
    assert not engine._thread.is_alive()


def test_work_is_done_in_the_order_it_came_and_never_two_at_once(engine):
    order, running = [], []

    def work(name):
        def do(ticket):
            running.append(name)
            assert running == [name]
            time.sleep(0.01)
            order.append(running.pop())

        return do

    for name in ("a", "b"):
        engine.submit(work(name), lambda event: None, client=name)
    assert engine.wait_until_idle(5)
    assert order == ["a", "b"]
    assert engine.measurements.total("answers", {"end": "done"}) == 2


def test_a_client_that_leaves_stops_the_work_between_two_steps(engine):
    step = Step()
    ticket = engine.submit(step, lambda event: None)
    step.begun.wait(5)
    ticket.cancel()
    done = step.steps
    assert engine.wait_until_idle(5)
    assert step.steps <= done + 2
    assert engine.measurements.total("answers", {"end": "left"}) == 1


def test_a_client_that_leaves_the_queue_makes_room_at_once_and_is_never_worked_on(engine):
    first, second = Step(), Step()
    engine.submit(first, lambda event: None, client="a")
    first.begun.wait(5)
    waiting = [engine.submit(second, lambda event: None, client=name) for name in ("b", "c")]
    with pytest.raises(EngineBusyError, match="2 requests are waiting") as busy:
        engine.submit(second, lambda event: None, client="d")
    assert not busy.value.own_fault
    assert busy.value.retry_after >= 1
    waiting[0].cancel()
    assert engine.n_waiting == 1
    engine.submit(second, lambda event: None, client="d").cancel()
    waiting[1].cancel()
    first.let_go.set()
    assert engine.wait_until_idle(5)
    assert not second.begun.is_set()


def test_one_client_cannot_take_the_whole_queue(engine):
    step = Step()
    tickets = [engine.submit(step, lambda event: None, client="greedy")]
    step.begun.wait(5)
    tickets.append(engine.submit(step, lambda event: None, client="greedy"))
    with pytest.raises(EngineBusyError, match="This client has 2 requests") as busy:
        engine.submit(step, lambda event: None, client="greedy")
    assert busy.value.own_fault
    engine.submit(step, lambda event: None, client="modest").cancel()
    for ticket in tickets:
        ticket.cancel()
    assert engine.wait_until_idle(5)
    # What is over does not count.
    engine.submit(step, lambda event: None, client="greedy").cancel()


def test_a_place_that_is_held_counts_and_is_given_up_without_a_trace(engine):
    held = [engine.hold("a") for _ in range(2)]
    assert (engine.n_waiting, engine.busy) == (2, False)
    for client, own_fault in (("a", True), ("b", False)):
        with pytest.raises(EngineBusyError) as busy:
            engine.check(client)
        assert busy.value.own_fault is own_fault
    held[0].cancel()
    held[0].cancel()
    engine.check("b")
    done = threading.Event()
    engine.begin(held[1], lambda ticket: done.set(), lambda event: None)
    assert done.wait(5)
    assert engine.wait_until_idle(5)
    assert engine.measurements.total("answers") == 1


def test_what_takes_too_long_is_stopped_and_says_so(engine):
    told: queue.SimpleQueue = queue.SimpleQueue()
    engine.submit(Step(), told.put, seconds=0.05)
    event = told.get(timeout=5)
    assert isinstance(event, Failed)
    assert event.kind == "time"
    assert engine.wait_until_idle(5)


@pytest.mark.parametrize(
    ("error", "kind"), [(ConfigError("the context is full."), "request"), (RuntimeError("secret path"), "server")]
)
def test_an_error_ends_one_request_and_not_the_engine(engine, error, kind, capsys):
    def fail(ticket):
        raise error

    told: queue.SimpleQueue = queue.SimpleQueue()
    engine.submit(fail, told.put)
    event = told.get(timeout=5)
    assert event.kind == kind
    assert "secret" not in event.sentence
    done = threading.Event()
    engine.submit(lambda ticket: done.set(), told.put)
    assert done.wait(5)


def test_stopping_gives_up_what_waits_and_what_is_worked_on():
    engine = Engine(Limits())
    step, told = Step(), queue.SimpleQueue()
    engine.submit(step, told.put)
    engine.submit(step, told.put)
    step.begun.wait(5)
    engine.stop(5)
    assert {told.get(timeout=5).kind for _ in range(2)} == {"stopping"}
    assert not engine._thread.is_alive()
    with pytest.raises(EngineBusyError, match="stopping"):
        engine.submit(step, told.put)


def test_an_engine_that_gives_no_sign_is_not_alive(engine):
    hold = threading.Event()
    engine.submit(lambda ticket: hold.wait(5), lambda event: None)
    while not engine.busy:
        time.sleep(0.001)
    time.sleep(0.02)
    assert engine.is_alive(silent_seconds=5)
    assert not engine.is_alive(silent_seconds=0.01)
    hold.set()
