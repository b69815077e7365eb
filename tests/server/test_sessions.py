"""Sessions over HTTP."""

from collections.abc import Iterator

import httpx
import pytest

from tests.server.running import running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running() as service, httpx.Client(base_url=service.url) as client:
        yield client


def test_the_process_says_that_it_lives(client: httpx.Client) -> None:
    answer = client.get("/v1/health/live")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_a_session_is_started_shown_listed_and_ended(client: httpx.Client) -> None:
    created = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"})
    assert created.status_code == 201
    session = created.json()
    path = created.headers["location"]
    assert path == f"/v1/sessions/{session['session_id']}"
    assert client.get(path).json() == session
    assert session in client.get("/v1/sessions").json()["sessions"]
    answer = client.post(f"{path}/resolve", json={"goal": "look"})
    assert answer.json()["decision"]["type"] == "deny"
    ended = client.delete(path, params={"reason": "cancelled"}).json()
    assert (ended["status"], ended["end_reason"]) == ("ended", "cancelled")


def test_a_list_ends_where_the_answer_is_long_enough_and_goes_on_from_there() -> None:
    with running() as service, httpx.Client(base_url=service.url) as client:
        long = {"text": "x" * 900_000}
        made = [
            client.post("/v1/sessions", json={"agent_id": "a", "goal": "g", "metadata": metadata}).json()["session_id"]
            for metadata in (*([long] * 10), *([{}] * 70))
        ]
        found: list[str] = []
        query: dict[str, str] = {}
        while True:
            answer = client.get("/v1/sessions", params={"limit": "1000", **query})
            assert len(answer.content) < 5 << 20
            page = answer.json()
            found += [session["session_id"] for session in page["sessions"]]
            if "next" not in page:
                break
            assert page["next"] == found[-1]
            query = {"after": page["next"]}
        assert found == sorted(made)
        assert len(client.get("/v1/sessions", params={"limit": 1}).json()["sessions"]) == 1
