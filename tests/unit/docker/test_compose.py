"""The compose files: pinned, least privilege, secrets from the environment alone; and what remembers that the stack is up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from data_exchange_center.settings import ROOT, load_settings
from docker import stack

FILES = {
    "production": [stack.PRODUCTION],
    "local": [stack.PRODUCTION, stack.LOCAL],
    "python backend": [stack.PRODUCTION, stack.LOCAL, stack.PYTHON_BACKEND],
}
# Elasticsearch's image writes its keystore and its logs beside its program
WRITABLE = {"elasticsearch"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as the file has them, before variables are filled in."""
    found: dict[str, Any] = yaml.safe_load((stack.FOLDER / stack.PRODUCTION).read_text())["services"]
    return found


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker/.env of its own."""
    monkeypatch.setattr(stack, "ENVIRONMENT", tmp_path / ".env")
    return tmp_path / ".env"


@pytest.mark.parametrize("files", FILES.values(), ids=FILES.keys())
def test_docker_compose_accepts_the_files(files: list[str], environment: Path) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no `docker compose` on this machine")
    stack.ensure_environment(files)
    chosen = [option for file in files for option in ("--file", str(stack.FOLDER / file))]
    command = [docker, "compose", "--env-file", str(environment), *chosen, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_images_are_pinned(services: dict[str, Any]) -> None:
    images = {service["image"] for service in services.values()} - {"marquee-app:latest"}
    assert images
    for image in images:
        assert re.search(r":\d+\.\d+", image), f"{image} may become another one"


def test_no_container_has_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only", False) is (name not in WRITABLE), name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name


def test_ports_bind_to_loopback_unless_told_otherwise(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 6
    assert all(port.startswith("${MARQUEE_BIND:-127.0.0.1}:") for port in ports)


def test_every_server_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name not in ("setup", "publisher"):
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_secrets_come_from_the_environment_alone(services: dict[str, Any]) -> None:
    text = (stack.FOLDER / stack.PRODUCTION).read_text()
    for name in stack.SECRETS:
        assert f"{name}=\n" in stack.EXAMPLE.read_text(), "the example holds no secret"
        assert f"${{{name}" in text
    for named in re.findall(r"(?i)(?:password|token)\S*: (\S+)", text):
        assert named.startswith("${"), named


def test_the_application_is_built_to_run_without_root() -> None:
    lines = (stack.FOLDER / "app" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER marquee"]
    assert not [line for line in lines if line.startswith("ADD") or ("ENV" in line and "PASSWORD" in line)]


def test_the_image_leaves_out_only_what_nothing_in_it_needs() -> None:
    text = (stack.FOLDER / "app" / "Dockerfile").read_text()
    found = re.search(r'ARG TRAINING="(.+)"', text)
    assert found
    left_out = set(found[1].split("|"))
    pins = set(re.findall(r"(?m)^([\w.-]+)==[^;\n]+$", (ROOT / "requirements.txt").read_text()))
    assert left_out <= pins
    for name in sorted(pins - left_out):
        for need in map(Requirement, requires(name) or []):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.name.lower() not in left_out, f"{name} needs {need.name}"
    modules = {"sklearn" if name == "scikit-learn" else name.replace("-", "_") for name in left_out}
    for folder in re.findall(r"(?m)^COPY (\w+) \1$", text):
        for path in (ROOT / folder).rglob("*.py"):
            imported = re.findall(r"(?m)^\s*(?:import|from) (\w+)", path.read_text())
            assert not modules.intersection(imported), path


def test_the_build_sees_nothing_but_what_the_image_needs() -> None:
    lines = (stack.FOLDER / "app" / "Dockerfile.dockerignore").read_text().split()
    assert lines[0] == "*"
    assert not [line for line in lines if ".env" in line or "marquee.toml" in line]


def test_the_first_start_makes_secrets_that_only_their_owner_reads(environment: Path) -> None:
    stack.ensure_environment(FILES["local"])
    made = stack.values()
    assert all(len(made[name]) >= 32 for name in stack.SECRETS)
    assert len({made[name] for name in stack.SECRETS}) == len(stack.SECRETS)
    assert environment.stat().st_mode & 0o777 == 0o600
    stack.ensure_environment(FILES["production"])
    assert {name: stack.values()[name] for name in stack.SECRETS} == {name: made[name] for name in stack.SECRETS}


def test_the_stack_is_noted_while_it_is_up(environment: Path) -> None:
    stack.ensure_environment(FILES["local"])
    assert stack.values()["COMPOSE_FILE"] == "compose.yaml:compose.local.yaml"
    stack.ensure_environment([])
    assert "COMPOSE_FILE" not in stack.values()


@pytest.mark.parametrize("before", [[], FILES["local"]], ids=["down", "up"])
def test_a_start_that_is_refused_leaves_what_was_noted(
    environment: Path, monkeypatch: pytest.MonkeyPatch, before: list[str]
) -> None:
    stack.ensure_environment(before)
    monkeypatch.setattr(stack, "image_holds", lambda service, path: False)
    with pytest.raises(SystemExit):
        stack.main(["up"])
    assert stack.values().get("COMPOSE_FILE", "") == ":".join(before)


@pytest.mark.parametrize(
    ("dataset", "scene"), [("ml-1m", "movielens"), ("criteo", "criteo"), ("my_log.yaml", "movielens")]
)
def test_the_publisher_of_the_stack_is_told_the_scene(
    monkeypatch: pytest.MonkeyPatch, dataset: str, scene: str
) -> None:
    started: list[tuple[str, ...]] = []

    def compose(*arguments: str, capture: bool) -> subprocess.CompletedProcess[str]:
        started.append(arguments)
        return subprocess.CompletedProcess([], 0, '{"ok": true, "flipped": true}\n')

    monkeypatch.setattr(stack, "compose", compose)
    monkeypatch.setenv("MARQUEE_DATA__DATASET", dataset)
    with pytest.raises(SystemExit) as ended:
        stack.main(["publish", "--release", "r1"])
    assert ended.value.code == 0
    assert [entry for entry in started[0] if "=" in entry] == [f"MARQUEE_FEATURES__SPEC={scene}"]
    assert load_settings(environment={"MARQUEE_FEATURES__SPEC": scene}).scene == scene


@pytest.mark.parametrize(
    ("up", "given", "expected"),
    [
        (False, [], "publish.py"),
        (True, [], "stack.py publish"),
        (True, ["STACK=0"], "publish.py"),
        (False, ["STACK=1"], "stack.py publish"),
    ],
)
def test_make_publish_means_the_stack_while_it_is_up(tmp_path: Path, up: bool, given: list[str], expected: str) -> None:
    (tmp_path / "docker").mkdir()
    if up:
        (tmp_path / "docker" / ".env").write_text("COMPOSE_FILE=compose.yaml\n")
    for name in ("requirements.txt", "requirements-text.txt", "pyproject.toml", ".venv/.setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    command = ["make", "--dry-run", "--file", str(ROOT / "Makefile"), "publish", "RELEASE=r1", *given]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith(f"{expected} --release r1")
