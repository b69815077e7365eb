"""Watchers: who wants to know when a session has new events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from types import TracebackType

Callback = Callable[[], object]


class Subscription:
    """One callback for one session, until it is closed; also a context manager."""

    __slots__ = ("_callback", "_session_id", "_watchers")

    def __init__(self, watchers: Watchers, session_id: str, callback: Callback) -> None:
        self._watchers = watchers
        self._session_id = session_id
        self._callback = callback

    def close(self) -> None:
        """Call back no more; safe to call twice."""
        self._watchers.remove(self._session_id, self)

    def tell(self) -> None:
        """Call back; what goes wrong there is not the writer's."""
        with suppress(Exception):
            self._callback()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Watchers:
    """The subscriptions of a runtime, by session."""

    def __init__(self) -> None:
        self._lock = Lock()
        # PERF: its truth is what a commit asks when nobody watches; tuples are replaced, so that telling takes no lock.
        self.by_session: dict[str, tuple[Subscription, ...]] = {}

    def add(self, session_id: str, callback: Callback) -> Subscription:
        """Call back after every commit in a session, in the thread that committed."""
        subscription = Subscription(self, session_id, callback)
        with self._lock:
            self.by_session[session_id] = (*self.by_session.get(session_id, ()), subscription)
        return subscription

    def remove(self, session_id: str, subscription: Subscription) -> None:
        """Forget a subscription."""
        with self._lock:
            left = tuple([other for other in self.by_session.get(session_id, ()) if other is not subscription])
            if left:
                self.by_session[session_id] = left
            else:
                self.by_session.pop(session_id, None)

    def tell(self, session_id: str) -> None:
        """Call back whoever watches a session."""
        for subscription in self.by_session.get(session_id, ()):
            subscription.tell()
