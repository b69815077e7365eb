"""cra serve: its settings, and the process itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cra.errors import ConfigInvalid
from cra.server.settings import TABLE, load_settings, redacted_url, shown
from tests.server.identities import claims, sign

ROOT = Path(__file__).resolve().parents[2]


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cra.toml"
    file.write_text('port = 1\nhost = "10.0.0.1"\nmax_queue = 3\n[runtime]\ndefault_decision = "deny"\n')
    environ = {"CRA_CONFIG": str(file), "CRA_PORT": "2", "CRA_HOST": "10.0.0.2", "CRA_ATLASES": f"a{os.pathsep}b"}
    settings, sources = load_settings({"port": 3}, environ=environ)
    assert (settings.port, settings.host, settings.max_queue, settings.workers) == (3, "10.0.0.2", 3, 1)
    assert settings.atlases == ("a", "b")
    assert [sources[name] for name in ("port", "host", "max_queue", "workers")] == [
        "flag",
        "environment",
        "file",
        "default",
    ]


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("wokers = 2", "`wokers` does not exist", "did you mean `workers`?"),
        ("[runtime]\nretentoin = 2", "runtime setting `retentoin`", "did you mean `retention`?"),
        ('port = "x"', "port", "docs/server.md"),
        ("port = 70000", "port", "docs/server.md"),
        ("dev = 1", "dev", "docs/server.md"),
        ('host = "0.0.0.0"\ndev = true', "without keys", "127.0.0.1 only"),
        ('storage = "memory"\nworkers = 2', "not shared between processes", "one worker"),
        ('storage = "file:///nowhere/at/all"', "cannot be read", ""),
        ("port = ", "is not TOML", ""),
        ("[auth]\nissuer = 1", "cra.toml: auth", "docs/identity.md"),
        ("[auth.proxy]\nsecret = 'env:CRA_NOWHERE'", "cra.toml: the environment has no `CRA_NOWHERE`", ""),
        ("[auth.proxy]\nsecret = 'hunter'\npeers = ['::1']", "cra.toml: proxy: secret is too short", ""),
        ("[runtime]\ncapture_parameters = 'all'", "cra.toml: capture_parameters", ""),
    ],
)
def test_a_wrong_setting_is_refused_with_what_would_be_right(tmp_path: Path, text: str, words: str, hint: str) -> None:
    file = tmp_path / "cra.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as refused:
        load_settings(environ={}, config=file)
    assert words in refused.value.message
    assert hint in (refused.value.hint or "")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("postgresql://cra:hunter2@db/cra?sslpassword=hunter3\n")
    file = tmp_path / "cra.toml"
    file.write_text(
        f'storage = "file://{url}"\n[auth.proxy]\nsecret = "{"hunter4" * 5}"\nsecret_header = "X-Proof"\n'
        "peers = ['127.0.0.1']\n"
    )
    effective = load_settings(environ={}, config=file)
    assert "hunter2" in effective.settings.storage
    text = json.dumps(shown(effective))
    assert "hunter" not in text
    assert "X-Proof" in text
    assert redacted_url("postgresql://u:p@h/d") == "postgresql://u:***@h/d"
    for badly_written in ("hun/ter", "hun@ter", "hun?ter", "hun#ter", "hun:ter"):
        assert redacted_url(f"postgresql://u:{badly_written}@h:1/d") == "postgresql://u:***@h:1/d"


def test_every_setting_is_in_its_page_with_its_default() -> None:
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    for setting in TABLE.values():
        assert f"| `{setting.name}` |" in page
        assert setting.meaning in page


def cra(*words: str, cwd: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cra", "serve", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, workers: str) -> None:
    atlas = str(ROOT / "examples" / "atlases" / "customer-support")
    process = cra("--dev", "--port", "0", "--workers", workers, "--atlas", atlas, cwd=tmp_path)
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("cra serves on "):
                break
        assert any("DEVELOPMENT" in line for line in lines)
        url = lines[-1].removeprefix("cra serves on ").strip()
        with httpx.Client(base_url=url, timeout=30) as client:
            assert client.get("/v1/health/ready").json()["durability"] == "strict"
            made = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"})
            assert made.status_code == 201
            assert "cra_requests_total" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "cra.db").is_file()


def test_the_log_says_why_a_credential_was_refused_and_nothing_that_was_in_it(tmp_path: Path) -> None:
    config = tmp_path / "cra.toml"
    config.write_text(
        'storage = "memory"\naccess_log = "json"\n[[auth.issuers]]\nissuer = "i"\naudience = ["cra"]\n'
        f'tenants = ["default"]\nalgorithms = ["HS256"]\nsecret = "{"hunter" * 6}"\n'
    )
    process = cra("--port", "0", "--config", str(config), cwd=tmp_path)
    assert process.stderr is not None
    try:
        url = next(line for line in process.stderr if line.startswith("cra serves on ")).split()[-1]
        header = {"alg": "none\n2026-01-01 ERROR forged", "typ": "at+jwt"}
        token = sign(b"k", claims(iss="i"), json.dumps(header).encode())
        shown = ("cra_default_0123456789abcdef_" + "s3cret-" * 6 + "x", token.decode())
        for credential in shown:
            answer = httpx.get(f"{url}/v1/sessions?token=hunter", headers={"Authorization": f"Bearer {credential}"})
            assert answer.status_code == 401
            assert "key" not in answer.json()["detail"] and "algorithm" not in answer.json()["detail"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    lines = log.splitlines()
    assert sum('"status":401' in line for line in lines) == 2
    assert sum("INFO cra.server.auth refused: there is no such key" in line for line in lines) == 1
    assert sum("INFO cra.server.auth refused: algorithm 'none" in line for line in lines) == 1
    assert not any(line.startswith("2026-01-01 ERROR forged") for line in lines)
    assert not any(secret in log for secret in ("hunter", "s3cret", token.decode()[-20:]))


def test_check_prints_what_holds_and_starts_nothing(tmp_path: Path) -> None:
    process = cra("--check", "--json", "--storage", "memory", cwd=tmp_path, CRA_MAX_QUEUE="7")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(out)["max_queue"] == {"source": "environment", "value": 7}
