"""A service that gets more than it can answer goes on answering as much as it can."""

from __future__ import annotations

import selectors
import socket

from cra.server.settings import ServiceSettings
from tests.server.running import read, running

_REQUEST = b"GET /v1/atlases HTTP/1.1\r\nhost: localhost\r\n\r\n"
_CALLERS = 40


def test_refusing_some_callers_does_not_make_the_service_refuse_all() -> None:
    # Callers that come back at once, whatever they are told.
    settings = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5, max_concurrency=1, max_queue=1)
    statuses = {b"200": 0, b"503": 0}
    with running(settings) as service, selectors.DefaultSelector() as waiting:
        callers = [socket.create_connection((service.host, service.port), timeout=30) for _ in range(_CALLERS)]
        try:
            for caller in callers:
                waiting.register(caller, selectors.EVENT_READ)
                caller.sendall(_REQUEST)
            while statuses[b"200"] < 200 or not statuses[b"503"]:
                for key, _ in waiting.select(30):
                    caller = key.fileobj
                    assert isinstance(caller, socket.socket)
                    answer = read(caller)
                    statuses[answer[9:12]] += 1
                    caller.sendall(_REQUEST)
                assert statuses[b"503"] < 10_000, statuses
        finally:
            for caller in callers:
                caller.close()


def test_a_refusal_is_a_whole_problem_with_an_id_of_its_own_and_the_time_to_wait() -> None:
    settings = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5, max_concurrency=1, max_queue=0)
    with running(settings) as service:
        service.app.service.calls = 1
        answers = []
        for _ in range(2):
            with socket.create_connection((service.host, service.port), timeout=30) as caller:
                caller.sendall(_REQUEST)
                answers.append(read(caller))
        with socket.create_connection((service.host, service.port), timeout=30) as caller:
            caller.sendall(_REQUEST.replace(b"GET /v1/atlases", b"GET /v1/health/live"))
            assert read(caller)[9:12] == b"200"
        service.app.service.calls = 0
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in head + b"\r\n"
        assert b"\r\ncontent-type: application/problem+json" in head
        assert b'"code":"overloaded"' in body
        request_id = head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0]
        assert request_id and b'"instance":"%b"' % request_id in body
    assert answers[0] != answers[1]
