"""Use an installed CRA the way its README does; run in a clean environment, far from the source tree.

usage: python -I wheels/smoke.py [--all]    --all: the extras are installed too
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import cra
from cra._core import flavour

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "smoke.desk",
    "version": "1.0.0",
    "name": "Smoke test",
    "actions": [
        {
            "action_id": "ticket.read",
            "name": "Read a ticket",
            "description": "Return one ticket.",
            "parameters_schema": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        },
        {"action_id": "ticket.delete", "name": "Delete a ticket", "description": "Remove one ticket for good."},
    ],
    "policies": [{"policy_id": "keep-tickets", "name": "Keep tickets", "type": "deny", "actions": ["*.delete"]}],
}


def main(extras: bool) -> None:
    """Resolve, execute, be denied, and verify the record of it."""
    assert "site-packages" in (cra.__file__ or ""), f"imported {cra.__file__}, expected the installed wheel"
    assert flavour.build_flavour == "release", f"the wheel's core is compiled as {flavour.build_flavour}"

    runtime = cra.CRARuntime()
    runtime.load_atlas_from_json(json.dumps(ATLAS))

    @runtime.executor("ticket.read")
    def read(parameters: dict[str, int]) -> dict[str, int]:
        return {"id": parameters["id"]}

    session = runtime.create_session(agent_id="smoke", goal="look at ticket 7")
    resolution = runtime.resolve(session.session_id, "look at ticket 7")
    assert [action.action_id for action in resolution.allowed_actions] == ["ticket.read"]
    assert [action.policy_id for action in resolution.denied_actions] == ["keep-tickets"]
    assert runtime.execute(session.session_id, "ticket.read", {"id": 7}) == {"id": 7}
    try:
        runtime.execute(session.session_id, "ticket.delete", {"id": 7})
    except cra.ActionDenied as denied:
        assert denied.policy_id == "keep-tickets"
    else:
        sys.exit("ticket.delete ran, expected a denial")
    verdict = runtime.verify_chain(session.session_id)
    assert verdict.ok and verdict.events >= 8, verdict

    if extras:
        command = Path(sys.executable).with_name("cra")
        with tempfile.TemporaryDirectory() as folder:
            for arguments in (["--version"], ["doctor"], ["conformance"], ["demo"]):
                done = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"cra {' '.join(arguments)}: {done.stdout}{done.stderr}"
    print(
        f"cra-core {version('cra-core')}: resolve, execute, deny and verify work{', and so does the command' * extras}"
    )


if __name__ == "__main__":
    main("--all" in sys.argv[1:])
