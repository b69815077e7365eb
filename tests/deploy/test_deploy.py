"""What is shipped to run the service says nothing that the service does not know, and what it starts, starts."""

import configparser
import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cra.cli import app
from cra.server.settings import TABLE, load_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("deployment", "security", "operations", "scaling")]
IN_USE = [
    ROOT / "Dockerfile",
    ROOT / "compose.yaml",
    *sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts),
    *PAGES,
]
# Of other commands than `cra serve`, and of those who run it.
OTHER_VARIABLES = {"CRA_CONFIG", "CRA_ACTOR", "CRA_APPROVER", "CRA_SET", "CRA_PROXY_SECRET", "CRA_API_KEY"}
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
PORT = TABLE["port"].default
USER = 10001


def words_of(command: list[str]) -> None:
    """Fail unless the command line is one that `cra` takes."""
    group, words = get_command(app), list(command)
    while hasattr(group, "commands") and words:
        name = words.pop(0)
        assert name in group.commands, f"`cra {shlex.join(command)}`: there is no `{name}`"
        group = group.commands[name]
    known = {option for parameter in group.params for option in parameter.opts} | {"--help", "-h"}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"`cra {shlex.join(command)}`: there is no {word}"


def documents(path: Path) -> Iterator[dict[str, Any]]:
    for found in sorted(path.rglob("*.yaml")):
        yield from yaml.safe_load_all(found.read_text(encoding="utf-8"))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [value for value in documents(KUBERNETES) if value["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    return [value["spec"]["template"] for value in documents(KUBERNETES) if value["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("path", IN_USE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_variable_that_is_used_is_a_setting(path: Path) -> None:
    known = {setting.variable for setting in TABLE.values()} | OTHER_VARIABLES
    found = set(re.findall(r"\bCRA_[A-Z][A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert found <= known, found - known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_in_the_pages_is_one(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = 0
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for match in re.finditer(
                r"(?:^|[\s(/])cra ((?:serve|keys|tenants|storage|trace|session|doctor)\b[^|;)>#]*)", line
            ):
                words_of(shlex.split(match[1].partition(" && ")[0], comments=True))
                found += 1
    assert found or path.name == "scaling.md"


@pytest.mark.parametrize("path", [DEPLOY / "cra.toml", KUBERNETES / "base/cra.toml"], ids=["sample", "kubernetes"])
def test_the_settings_files_are_taken_with_what_is_commented_out_too(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    settings = load_settings({"storage": "memory"}, environ={}, config=path).settings
    assert settings.shutdown_seconds == TABLE["shutdown_seconds"].default
    from cra.server.auth.settings import auth_settings

    auth_settings(settings.auth)
    whole = re.sub(r"^# ?(?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE).replace(
        "file:/etc/cra/proxy-secret", "x" * 32
    )
    auth_settings(tomllib.loads(whole).get("auth", {}))


def test_the_image_runs_as_nobody_of_importance_and_starts_the_service() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert f"USER {USER}:{USER}" in last
    assert f"EXPOSE {PORT}" in last and f"CRA_PORT={PORT}" in last
    assert "STOPSIGNAL SIGTERM" in last
    assert "/v1/health/ready" in last
    assert 'ENTRYPOINT ["/opt/cra/bin/cra"]' in last and 'CMD ["serve"]' in last
    assert not re.search(r"password|secret|token", re.sub(r"^#.*$", "", text, flags=re.MULTILINE), re.IGNORECASE)
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_the_packages_of_the_image_are_those_that_the_service_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"]]
    for name in ("cli", "server", "sqlite", "postgres"):
        wanted += extras[name]
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE))
    from packaging.requirements import Requirement

    for line in wanted:
        requirement = Requirement(line)
        if requirement.name == "cra-core" or (requirement.marker and not requirement.marker.evaluate()):
            continue
        assert requirement.name in locked, f"{line}: run the command in docs/deployment.md that writes the file"
        assert locked[requirement.name] in requirement.specifier, line
    build = dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", (DEPLOY / "requirements-build.txt").read_text(), re.MULTILINE))
    for line in project["build-system"]["requires"]:
        requirement = Requirement(line)
        assert build[requirement.name] in requirement.specifier, line


def test_the_compose_file_keeps_secrets_in_files_and_the_port_on_this_machine() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service, database = compose["services"]["cra"], compose["services"]["postgres"]
    words_of(service["command"])
    assert all(port.startswith("127.0.0.1:") and port.endswith(f":{PORT}") for port in service["ports"])
    assert "ports" not in database
    assert "fsync=on" in database["command"] and "synchronous_commit=on" in database["command"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert int(service["stop_grace_period"].removesuffix("s")) > TABLE["shutdown_seconds"].default
    assert "@" not in str(service["environment"])
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./deploy/secrets/{name}"}
    ignored = (DEPLOY / ".gitignore").read_text(encoding="utf-8") + (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert "secrets/" in ignored and "\n*\n" in ignored


def test_secrets_are_made_once_and_nobody_else_on_the_machine_reads_them(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets").chmod(0o755)
    for _ in range(2):
        subprocess.run(["sh", tmp_path / "secrets.sh"], check=True, capture_output=True, timeout=20)
        password = (tmp_path / "secrets/postgres-password").read_text()
    assert len(password) == 64
    assert (tmp_path / "secrets/storage-url").read_text() == f"postgresql://cra:{password}@postgres:5432/cra\n"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_pods_may_do_nothing_that_they_need_not() -> None:
    assert len(pods()) == 2
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == USER
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            words_of(container["args"])
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            names = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= names
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] == "http"


def test_the_deployment_is_what_the_service_is() -> None:
    (deployment,) = of_kind("Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    settings = tomllib.loads((KUBERNETES / "base/cra.toml").read_text(encoding="utf-8"))
    assert settings["port"] == PORT and settings["storage"] == container["env"][0]["value"]
    # A process that is told to stop has its own time, and what Kubernetes takes before it.
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= pause + settings["shutdown_seconds"] + 5
    assert container["livenessProbe"]["httpGet"]["path"] == "/v1/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/health/ready"
    labels = deployment["spec"]["template"]["metadata"]["labels"] | {"app.kubernetes.io/name": "cra"}
    for kind in ("Service", "PodDisruptionBudget"):
        (other,) = of_kind(kind)
        selector = other["spec"]["selector"]
        assert (selector.get("matchLabels") or selector).items() <= labels.items()
    (policy,) = of_kind("NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("part", ["base", "migrate", "autoscaling"])
def test_kustomize_puts_the_manifests_together(part: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / part)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    for value in yaml.safe_load_all(made.stdout):
        assert value["kind"] == "Namespace" or value["metadata"]["namespace"] == "cra"
    assert "image: registry.example.com/cra:" in made.stdout


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd/cra.service", encoding="utf-8")
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/cra.service").read_text(encoding="utf-8")
    path = tmp_path / "cra.service"
    path.write_text(text.replace("/opt/cra/bin/cra", "/bin/true"))
    made = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in made.stderr.splitlines() if "cra.service" in line]
    assert (made.returncode, ours) == (0, []), made.stderr


@pytest.mark.skipif(os.name == "nt", reason="systemd is for Linux, and Windows has no SIGTERM")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_the_unit_starts_is_ready_and_ends_well_when_it_is_told_to(tmp_path: Path, workers: str) -> None:
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > TABLE["shutdown_seconds"].default
    program, *words = shlex.split(service["ExecStart"])
    assert program == "/opt/cra/bin/cra"
    words_of(words)
    config = tmp_path / "cra.toml"
    text = (DEPLOY / "cra.toml").read_text(encoding="utf-8")
    config.write_text(text.replace("/var/lib/cra", str(tmp_path)).replace("port = 8420", "port = 0"))
    words = [str(config) if word == "/etc/cra/cra.toml" else word for word in words]
    environment = {"PATH": os.environ["PATH"], "CRA_WORKERS": workers, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "cra", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(r"cra serves on http://127\.0\.0\.1:(\d+)\n", line)
            assert found, line
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("GET", "/v1/health/ready")
            answer = connection.getresponse()
            assert (answer.status, b'"strict"' in answer.read()) == (200, True)
            connection.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "cra.db").is_file()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_its_sample(tmp_path: Path) -> None:
    text = (DEPLOY / "proxy/nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"^\s+ssl_(certificate|certificate_key|client_certificate|verify_client) .*$", "", text, flags=re.M)
    text = text.replace("443 ssl http2", "443").replace("/etc/nginx/cra-proxy-secret.conf", f"{tmp_path}/secret.conf")
    text = text.replace("$ssl_client_verify", "$host").replace("$ssl_client_s_dn", "$host")
    (tmp_path / "secret.conf").write_text('map $cra_subject $cra_proof { default "x"; "" ""; }\n')
    whole = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {text} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    made = subprocess.run(
        ["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, timeout=30, check=False
    )
    assert made.returncode == 0, made.stderr
