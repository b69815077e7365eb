"""Code moves between the embedded runtime and a service by changing one line."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from cra.client import AsyncCRAClient, CRAClient
from cra.client.asynchronous import AsyncClientApprovals
from cra.client.sync import ClientApprovals
from cra.runtime.approvals import Approvals
from cra.runtime.asynchronous import AsyncCRARuntime
from cra.runtime.awaited import AsyncApprovals
from cra.runtime.sync import CRARuntime

# What a runtime has and a client does not, and why.
EMBEDDED_ONLY = {
    "executor": "executors live with the service",
    "register_executor": "executors live with the service",
    "snapshot": "decisions are made where the service is",
    "subscribe": "`follow` tells of events from anywhere",
    "expire": "the service records what expires",
}
# What a client has beside.
CLIENT_ONLY = {
    "follow": "a trace as it is written",
    "call": "routes that the runtime has no method for",
}
# Parameters of a runtime that a client does not take, and the other way round.
NOT_TAKEN = {
    ("execute", "actor"): "the credential says who calls",
    ("handle", "actor"): "the credential says who calls",
    ("list", "agent_id"): "the credential says whose",
}
ADDED = {("verify_chain", "locally"): "whom to believe"}
# What a client waits for, and a runtime does not.
AWAITED = {"load_atlas", "load_atlas_from_json", "unload_atlas", "list_atlases", "replay", "what_if"}
# The person whom the credential belongs to decides.
OPTIONAL = {("grant", "approver"), ("reject", "approver")}

PAIRS = [
    (CRARuntime, CRAClient),
    (AsyncCRARuntime, AsyncCRAClient),
    (Approvals, ClientApprovals),
    (AsyncApprovals, AsyncClientApprovals),
]


def methods(kind: type) -> dict[str, Any]:
    names = [name for name in dir(kind) if not name.startswith("_")]
    return {name: inspect.getattr_static(kind, name) for name in names}


def words(annotation: Any, method: Any) -> str:
    """Return an annotation in one form, whether it was written as text or not."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, method.__globals__)
        except NameError:
            # What only a type checker imports.
            return annotation.strip("'\"")
    return re.sub(r"\b(?:[a-z_]\w*\.)+", "", inspect.formatannotation(annotation))


@pytest.mark.parametrize(("runtime", "client"), PAIRS)
def test_a_client_has_the_methods_of_the_runtime_but_for_those_that_are_named_here(runtime: type, client: type) -> None:
    ours, theirs = set(methods(runtime)), set(methods(client))
    assert ours - theirs <= set(EMBEDDED_ONLY) | {"is_settled"}
    assert theirs - ours <= set(CLIENT_ONLY)


@pytest.mark.parametrize(("runtime", "client"), PAIRS)
def test_methods_take_and_return_the_same(runtime: type, client: type) -> None:
    both = [name for name in methods(runtime) if name in methods(client) and callable(getattr(runtime, name))]
    assert len(both) >= 5
    for name in both:
        one, other = getattr(runtime, name), getattr(client, name)
        if name not in AWAITED:
            assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(other), name
        taken, given = (dict(inspect.signature(method).parameters) for method in (one, other))
        for (method, parameter), _ in [*NOT_TAKEN.items(), *ADDED.items()]:
            if method == name:
                taken.pop(parameter, None)
                given.pop(parameter, None)
        assert list(taken) == list(given), name
        for parameter, wanted in taken.items():
            found = given[parameter]
            assert found.kind == wanted.kind, (name, parameter)
            if (name, parameter) not in OPTIONAL:
                assert found.default == wanted.default, (name, parameter)
                assert words(found.annotation, other) == words(wanted.annotation, one), (name, parameter)
        ours, theirs = (words(inspect.signature(each).return_annotation, each) for each in (one, other))
        assert ours == theirs, name


def test_the_two_clients_have_the_same_methods_with_the_same_parameters() -> None:
    for one, other in ((CRAClient, AsyncCRAClient), (ClientApprovals, AsyncClientApprovals)):
        assert methods(one).keys() == methods(other).keys()
        for name in methods(one):
            first, second = (inspect.signature(getattr(kind, name)).parameters for kind in (one, other))
            assert [str(p) for p in first.values()] == [str(p) for p in second.values()], name
