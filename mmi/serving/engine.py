"""One thread that owns the model, and a bounded queue before it.

Requests are worked on one after the other, in the order they came. A place in the queue may be held for a request that
has arrived but is not understood yet, so that nothing is decoded for one that would be sent away. A request may be
given up at any time: one that waits leaves the queue at once, one that is worked on is asked between tokens and
sampling steps whether to go on.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

from mmi.config import ConfigError
from mmi.serving.events import Event, Failed, Tell
from mmi.serving.items import GenerationCancelled
from mmi.serving.limits import Limits
from mmi.serving.measurements import Measurements

# Returns the last thing to be told, if anything is left to be told.
Work = Callable[["Ticket"], Event | None]
_State = Literal["held", "waiting", "working", "over"]


class EngineBusyError(Exception):
    """Say that a request cannot be taken now, and when to come back.

    Args:
        sentence: Why.
        retry_after: Seconds after which it may be worth another try.
        own_fault: Whether this client has too many requests itself, not all clients together.
    """

    def __init__(self, sentence: str, retry_after: int, *, own_fault: bool) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.own_fault = own_fault


class Ticket:
    """A request on its way through the engine.

    Args:
        engine: Where it was handed in.
        client: Whose request it is.
        seconds: How long it may take, waiting included.

    Attributes:
        work: What is to be done; told this ticket, run by the engine's thread.
        tell: Told everything that happens; called from the engine's thread, so it must not wait.
        state: ``held`` while what is to be done is not known yet.
    """

    def __init__(self, engine: Engine, client: str, seconds: float) -> None:
        self._engine = engine
        self._left = threading.Event()
        self.work: Work = _nothing
        self.tell: Tell = _nobody
        self.client = client
        self.handed_in = time.monotonic()
        self.deadline = self.handed_in + seconds
        self.state: _State = "held"

    @property
    def left(self) -> bool:
        """Whether the client has gone."""
        return self._left.is_set()

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.deadline

    def should_stop(self) -> bool:
        """Say, between two tokens or sampling steps, whether to stop; a sign of life of the engine, too."""
        self._engine.sign_of_life()
        return self.left or self.overdue or self._engine.stopping

    def cancel(self) -> None:
        """Give the request up, wherever it is; harmless when it is over."""
        self._left.set()
        self._engine.forget(self)


def _nothing(ticket: Ticket) -> None:
    raise AssertionError("a place was held and never used")


def _nobody(event: Event) -> None:
    """Tell nobody."""


class Engine:
    """Do one piece of work after the other on a thread of its own.

    Args:
        limits: How many requests may wait, and for how long.
        measurements: Where waiting, working and endings are counted.
    """

    def __init__(self, limits: Limits, measurements: Measurements | None = None) -> None:
        self.limits = limits
        self.measurements = measurements or Measurements()
        self.measurements.watch("queue_length", "Requests that wait.", lambda: self.n_waiting)
        self.measurements.watch("busy", "Whether a request is worked on.", lambda: float(self.busy))
        self.stopping = False
        self._waiting: deque[Ticket] = deque()
        self._n_held = 0
        self._of_client: Counter[str] = Counter()
        self._working: Ticket | None = None
        self._changed = threading.Condition()
        self._sign = time.monotonic()
        self._thread = threading.Thread(target=self._work_on, name="mmi-engine", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Requests that wait, those whose place is held included."""
        return len(self._waiting) + self._n_held

    @property
    def busy(self) -> bool:
        """Whether a request is worked on."""
        return self._working is not None

    def submit(self, work: Work, tell: Tell, client: str = "", seconds: float | None = None) -> Ticket:
        """Hand a request in.

        Args:
            work: What to do; what it returns is told when the engine is free again, what it raises becomes a
                :class:`Failed`.
            tell: Told every event from the engine's thread; must not wait.
            client: Whose request it is: an address or a name.
            seconds: How long it may take; None is ``limits.request_seconds``.

        Raises:
            EngineBusyError: If too many requests wait, of this client or of all, or the engine is stopping.
        """
        ticket = self.hold(client, seconds)
        self.begin(ticket, work, tell)
        return ticket

    def hold(self, client: str = "", seconds: float | None = None) -> Ticket:
        """Hold a place for a request that is not understood yet; it counts as one that waits.

        Args:
            client: See :meth:`submit`.
            seconds: See :meth:`submit`.

        Raises:
            EngineBusyError: See :meth:`submit`.
        """
        with self._changed:
            self._check(client)
            ticket = Ticket(self, client, seconds or self.limits.request_seconds)
            self._n_held += 1
            self._of_client[client] += 1
        return ticket

    def begin(self, ticket: Ticket, work: Work, tell: Tell) -> None:
        """Say what is to be done for a place that is held; it stands behind those that wait.

        Raises:
            EngineBusyError: If the engine is stopping.
        """
        with self._changed:
            if self.stopping:
                raise EngineBusyError("The server is stopping.", self._retry_after(), own_fault=False)
            if ticket.state != "held":
                return
            ticket.work, ticket.tell, ticket.state = work, tell, "waiting"
            self._n_held -= 1
            self._waiting.append(ticket)
            self._changed.notify_all()

    def check(self, client: str) -> None:
        """See whether a request would be taken now.

        Raises:
            EngineBusyError: If not.
        """
        with self._changed:
            self._check(client)

    def _check(self, client: str) -> None:
        later = self._retry_after()
        if self.stopping:
            raise EngineBusyError("The server is stopping.", later, own_fault=False)
        if self._of_client[client] >= self.limits.per_client:
            sentence = f"This client has {self.limits.per_client} requests under way, the most there may be."
            raise EngineBusyError(f"{sentence} Wait for one to end.", later, own_fault=True)
        if self.n_waiting >= self.limits.queue_length:
            sentence = f"{self.limits.queue_length} requests are waiting, the most there may be."
            raise EngineBusyError(f"{sentence} Try again later.", later, own_fault=False)

    def forget(self, ticket: Ticket) -> None:
        """Take a request that waits out of the queue, or give up the place that is held for it."""
        with self._changed:
            state = ticket.state
            if state not in ("held", "waiting"):
                return
            if state == "held":
                self._n_held -= 1
            else:
                self._waiting.remove(ticket)
            self._over(ticket)
        # What ends before it waits has not asked for an answer yet.
        if state == "waiting":
            self.measurements.count("answers", labels={"end": "left"})

    def sign_of_life(self) -> None:
        """Note that the work under way goes on."""
        self._sign = time.monotonic()

    def is_alive(self, silent_seconds: float = 120.0) -> bool:
        """Say whether the thread lives and, if it works, has given a sign of life lately."""
        silent = self.busy and time.monotonic() - self._sign > silent_seconds
        return self._thread.is_alive() and not silent

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nothing waits and nothing is worked on; return whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.n_waiting and self._working is None, seconds)

    def stop(self, seconds: float = 10.0) -> None:
        """Stop what is worked on, give up what waits, end the thread."""
        with self._changed:
            self.stopping = True
            given_up = list(self._waiting)
            self._waiting.clear()
            for ticket in given_up:
                self._over(ticket)
            self._changed.notify_all()
        for ticket in given_up:
            ticket.tell(Failed("stopping", "The server is stopping."))
        self._thread.join(seconds)

    def _retry_after(self) -> int:
        """Return the seconds in which the queue should get shorter."""
        return max(1, min(60, round((self.measurements.mean("answer_seconds") or 1.0) * 2)))

    def _over(self, ticket: Ticket) -> None:
        ticket.state = "over"
        self._of_client[ticket.client] -= 1
        if not self._of_client[ticket.client]:
            del self._of_client[ticket.client]
        self._changed.notify_all()

    def _work_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.stopping)
                if self.stopping:
                    return
                ticket = self._waiting.popleft()
                ticket.state = "working"
                self._working = ticket
                self.sign_of_life()
            started = time.monotonic()
            self.measurements.took("waiting_seconds", started - ticket.handed_in)
            event, end = self._do(ticket)
            self.measurements.count("answers", labels={"end": end})
            self.measurements.took("answer_seconds", time.monotonic() - started)
            with self._changed:
                self._working = None
                self._over(ticket)
            # Told last: whoever hears of the end finds the engine free.
            if event is not None:
                self._tell(ticket, event)
            del ticket

    def _do(self, ticket: Ticket) -> tuple[Event | None, str]:
        """Do the work; return what is left to be told and how it ended."""
        try:
            if not ticket.should_stop():
                return ticket.work(ticket), "done"
        except GenerationCancelled:
            pass
        except ConfigError as error:
            return Failed("request", str(error)), "refused"
        except Exception as error:  # one request must not take the server with it
            traceback.print_exc()
            return Failed("server", f"The model failed ({type(error).__name__}); the server's log says more."), "failed"
        if ticket.left:
            return None, "left"
        if ticket.overdue:
            seconds = round(ticket.deadline - ticket.handed_in)
            return Failed("time", f"The answer was not ready within {seconds} seconds."), "late"
        return Failed("stopping", "The server is stopping."), "stopped"

    def _tell(self, ticket: Ticket, event: Event) -> None:
        try:
            ticket.tell(event)
        except Exception:  # the listener's loop may be closed
            traceback.print_exc()
