"""The service under schemathesis: whatever is asked, the answer is one that the document has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cra.protocol.times import format_timestamp
from cra.runtime.config import system_clock
from cra.server.settings import ServiceSettings
from cra.storage.memory import MemoryStorage
from tests.server.desk import MANIFEST, desk
from tests.server.identities import claims, make_key, make_tenant, public, set_role, sign, signing_key
from tests.server.running import running

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "cra" / "server" / "openapi.json"
OPERATOR = "the administrator of the service"
WHO: dict[str, dict[str, Any]] = {
    "an administrator": {"roles": ["admin"]},
    "an agent": {"roles": ["agent"], "agent_id": "bot"},
    OPERATOR: {"tenant": "system", "roles": ["admin"]},
}

# Beside what every call may be answered: what is wrong with a request that the document's schemas cannot say.
REFUSED = {
    "loadAtlas": (422, "what is in an atlas has to fit together"),
    "createKey": (400, "roles and scopes have to exist"),
    "setRole": (400, "permissions have to exist, and the name has not to be that of a built-in role"),
    "createTenant": (400, "some names are the service's own"),
    "resolve": (400, "the requester has to be that of the session"),
    "execute": (400, "the requester has to be that of the session"),
    "validate": (400, "the requester has to be that of the session"),
    "executeInSession": (400, "parameters have to be what the action takes"),
    "simulate": (400, "parameters have to be what the action takes"),
}
ANY = ["2xx", 401, 403, 404, 409, 410, 413, 422, 429]

HOOKS = '''
import schemathesis

@schemathesis.hook
def filter_body(context, body):
    """Leave out what JSON Schema takes for an integer and the service does not: a number like 7.0."""
    todo = [body]
    while todo:
        value = todo.pop()
        if isinstance(value, float) and value.is_integer():
            return False
        todo.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return True
'''


class Place:
    """A service with something in it, and the ids of that."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.words: dict[str, list[str]] = {}

    def fill(self, client: httpx.Client, store: MemoryStorage) -> None:
        """Have something of each kind there."""
        sessions = []
        for number in range(5):
            new = {"agent_id": "bot" if number < 4 else "other", "goal": "help"}
            session = client.post("/v1/sessions", json=new).raise_for_status().json()["session_id"]
            client.post(f"/v1/sessions/{session}/resolve", json={"goal": "help"}).raise_for_status()
            for name in ("look", "burn", "pay"):
                call = {"action_id": f"desk.{name}", "parameters": {}}
                client.post(f"/v1/sessions/{session}/execute", json=call).raise_for_status()
            sessions.append(session)
        client.put(f"/v1/sessions/{sessions[1]}/hold", json={"reason": "kept"}).raise_for_status()
        for session in sessions[2:]:
            client.delete(f"/v1/sessions/{session}").raise_for_status()
        approvals = client.get("/v1/approvals").raise_for_status().json()["approvals"]
        set_role(store, "default", "clerk", "sessions.read")
        make_tenant(store, "acme")
        self.words = {
            "sessions": sessions,
            "ended": sessions[2:],
            "approvals": [approval["approval_id"] for approval in approvals],
            "keys": [make_key(store, roles=["viewer"])[0], make_key(store, "system", roles=["viewer"])[0]],
            "atlases": [MANIFEST["atlas_id"]],
            "names": ["clerk", "acme", "admin", "default"],
            "actions": [action["action_id"] for action in MANIFEST["actions"]],
            "agents": ["bot", "other"],
            "waits": ["0"],
            "times": [format_timestamp(system_clock())],
        }

    def write_config(self, examples: int, seed: int | None) -> None:
        """Write what schemathesis reads; without a seed it makes the same calls every time."""
        bound = {
            "path.session_id": "sessions",
            "query.session_id": "sessions",
            "body.session_id": "sessions",
            "body.requester.session_id": "sessions",
            "body.requester.agent_id": "agents",
            "body.execution.action_id": "actions",
            "body.action_id": "actions",
            "body.left": "sessions",
            "body.right": "sessions",
            "path.approval_id": "approvals",
            "path.key_id": "keys",
            "path.atlas_id": "atlases",
            "path.name": "names",
            "query.agent_id": "agents",
        }
        lines = [
            "continue-on-failure = true",
            "warnings = false",
            "request-timeout = 75",
            "" if seed is None else f"seed = {seed}",
            f"hooks = {json.dumps(str(self.folder / 'hooks.py'))}",
            f"base-url = {json.dumps(self.url)}",
            f"generation = {{ max-examples = {examples}, deterministic = {'true' if seed is None else 'false'}, "
            "database = 'none', no-shrink = true }",
            f"checks = {{ positive_data_acceptance = {{ expected-statuses = {json.dumps(ANY)} }} }}",
            "[dictionaries]",
            *(f"{name} = {{ values = {json.dumps(values)} }}" for name, values in self.words.items()),
            "[parameters]",
            '"body.timestamp" = { dictionary = "times" }',  # a pattern has no calendar
            *(f'"{name}" = {{ dictionary = "{words}", probability = 0.7 }}' for name, words in bound.items()),
        ]
        for operation, (status, _) in REFUSED.items():
            lines += [
                "[[operations]]",
                f'include-operation-id = "{operation}"',
                f"checks = {{ positive_data_acceptance = {{ expected-statuses = {json.dumps([*ANY, status])} }} }}",
            ]
        # Who waits for something that does not happen is answered late, and that is right.
        lines += [
            "[[operations]]",
            'include-operation-id = "getApproval"',
            'parameters = { "query.wait_seconds" = { dictionary = "waits" } }',
            "checks = { max_response_time = 70.0 }",
            "[[operations]]",
            'include-operation-id = "followTrace"',
            'parameters = { "path.session_id" = { dictionary = "ended" } }',
        ]
        (self.folder / "schemathesis.toml").write_text("\n".join(lines))
        (self.folder / "hooks.py").write_text(HOOKS)

    def run(self, *options: str) -> None:
        """Run schemathesis; fail with what it says unless it finds nothing."""
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
        command += ["--config-file", str(self.folder / "schemathesis.toml"), "--no-color", "run", str(DOCUMENT)]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "COLUMNS": "200"}
        done = subprocess.run(
            [*command, *options], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Run a service whose callers have tokens: what they do to keys does not lock them out."""
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(public(signing_key("P-256"))))
    issuer = {
        "issuer": claims()["iss"], "audience": ["cra"], "tenants": ["default", "system"],
        "tenant_claim": "tenant", "jwks_file": str(jwks),
    }  # fmt: skip
    settings = ServiceSettings(
        storage="memory",
        shutdown_seconds=5,
        auth={"issuers": [issuer], "throttle": {"failures_per_second": 0}},
    )
    store = MemoryStorage(max_sessions=100_000, max_events=10_000_000)
    with running(settings, storage=store, atlases=(desk(),), register=register) as service:
        found = Place(service.url, folder)
        with httpx.Client(base_url=service.url, timeout=60, headers=credential(WHO["an administrator"])) as client:
            found.fill(client, store)
        yield found


def register(runtime: Any) -> None:
    runtime.register_executor("*", lambda parameters: {"done": parameters}, inline=True)


def credential(who: dict[str, Any]) -> dict[str, str]:
    """Return the header of who calls."""
    now = int(time.time())
    payload = claims(**{"tenant": "default", **who}, iat=now, exp=now + 3600)
    return {"Authorization": f"Bearer {sign(signing_key('P-256'), payload).decode()}"}


def headers(name: str) -> list[str]:
    found = credential(WHO[name]) if name in WHO else {}
    return [f"--header={key}: {value}" for key, value in found.items()]


def test_no_answer_to_an_administrator_is_outside_of_the_document(tmp_path: Path) -> None:
    with place(tmp_path) as found:
        found.write_config(2, None)
        # Keys, roles and tenants have a test of their own below.
        found.run("--phases=coverage,fuzzing", "--checks=all", "--exclude-tag=identity", *headers("an administrator"))


def test_no_answer_to_an_agent_is_outside_of_the_document(tmp_path: Path) -> None:
    with place(tmp_path) as found:
        found.write_config(3, None)
        found.run("--phases=fuzzing", "--checks=all", *headers("an agent"))


def test_no_answer_to_who_runs_the_service_is_outside_of_the_document(tmp_path: Path) -> None:
    with place(tmp_path) as found:
        found.write_config(3, None)
        found.run("--phases=coverage,fuzzing", "--checks=all", "--include-tag=identity", *headers(OPERATOR))


def test_no_answer_to_nobody_is_outside_of_the_document(tmp_path: Path) -> None:
    with place(tmp_path) as found:
        found.write_config(2, None)
        found.run("--phases=fuzzing", "--checks=all")


def test_no_sequence_of_calls_is_answered_outside_of_the_document(tmp_path: Path) -> None:
    with place(tmp_path) as found:
        found.write_config(25, None)
        found.run("--phases=stateful", "--checks=all", *headers("an administrator"))


@pytest.mark.slow
@pytest.mark.parametrize("who", [*WHO, "nobody"])
def test_no_answer_of_many_is_outside_of_the_document(who: str, tmp_path: Path, seed: int) -> None:
    with place(tmp_path) as found:
        found.write_config(50, seed)
        found.run("--phases=coverage,fuzzing,stateful", "--checks=all", *headers(who))
