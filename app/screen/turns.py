"""Trainings at a time, of all visitors together: who comes later waits in turn."""

import threading
import time

GONE = 5.0
"""Seconds after which someone who waits and does not ask again has left."""


class Turns:
    """So many places; those who wait get them in the order in which they first asked."""

    def __init__(self, places: int):
        self.places = places
        self._lock = threading.Lock()
        self._running: set[object] = set()
        self._waiting: dict[object, float] = {}  # when each last asked, in the order in which they came

    def ahead(self, who: object) -> int:
        """How many have to go first. At 0 `who` has a place, until `leave`; otherwise ask again soon."""
        now = time.monotonic()
        with self._lock:
            self._waiting[who] = now
            for other in [other for other, at in self._waiting.items() if now - at > GONE]:
                del self._waiting[other]
            before = list(self._waiting).index(who) + len(self._running) + 1 - self.places
            if before <= 0:
                del self._waiting[who]
                self._running.add(who)
            return max(before, 0)

    def leave(self, who: object) -> None:
        """Give a place back, or stop waiting."""
        with self._lock:
            self._running.discard(who)
            self._waiting.pop(who, None)

    @property
    def free(self) -> int:
        """Places that nobody has."""
        with self._lock:
            return self.places - len(self._running)
