"""The Docker stack as one command: up, down, publish, rollback, status.

    python docker/stack.py up [--local]          build, start, wait until every service is healthy
    python docker/stack.py publish [--release ID] [--dry-run]
    python docker/stack.py rollback [--release ID]
    python docker/stack.py check [--requests N]  offline against online scores, asked of the stack's application
    python docker/stack.py status
    python docker/stack.py down [--volumes]      --volumes deletes the data too

`up` makes docker/.env, with random passwords, when there is none. While the stack is up, `make publish`, `make rollback` and
`make check` mean it. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_exchange_center.errors import MarqueeError
from data_exchange_center.programs import run_program
from data_exchange_center.settings import load_settings

FOLDER = Path(__file__).resolve().parent
ENVIRONMENT, EXAMPLE = FOLDER / ".env", FOLDER / ".env.example"
NOTE = "COMPOSE_FILE="
# which files make the stack is noted in .env while it is up, so that every later command means the same one
PRODUCTION, LOCAL, PYTHON_BACKEND = "compose.yaml", "compose.local.yaml", "compose.python-backend.yaml"
NATIVE_BACKEND = "/opt/tritonserver/backends/onnxruntime/libtriton_onnxruntime.so"
SECURITY = "/usr/share/elasticsearch/modules/x-pack-security"
SECRETS = ("REDIS_PASSWORD", "ELASTIC_PASSWORD", "MARQUEE_ADMIN_TOKEN")
WAIT_SECONDS = 300
GOOD = ("healthy", "running")


class StackError(MarqueeError):
    """Docker is not to be had, or a service does not come up."""

    code = "stack"


def compose(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs `docker compose` on this folder; its messages go to stderr unless its output is wanted."""
    docker = shutil.which("docker")
    if not docker:
        raise StackError("docker is not installed; the embedded default (`make demo`) needs none")
    output = subprocess.PIPE if capture else sys.stderr
    command = [docker, "compose", "--project-directory", str(FOLDER), *arguments]
    return subprocess.run(command, stdout=output, text=True, check=False, cwd=FOLDER)


def image_holds(service: str, path: str) -> bool:
    """Whether a service's image holds a file or folder; pulls the image when it is not here."""
    images = json.loads(compose("config", "--format", "json", capture=True).stdout)["services"]
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "test",
        images[service]["image"],
        "-e",
        path,
    ]
    status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status not in (0, 1):
        raise StackError(f"cannot run the image {images[service]['image']}; see Docker's message above")
    return status == 0


def choose_files(local: bool) -> list[str]:
    """The compose files for the images at hand.

    Raises:
        StackError: the production stack is wanted of an Elasticsearch that has no security.
    """
    if not local and not image_holds("elasticsearch", SECURITY):
        raise StackError(
            "this Elasticsearch image has no security module, so it cannot serve TLS with a password; "
            "`python docker/stack.py up --local` starts the stack without, on loopback ports"
        )
    native = image_holds("triton", NATIVE_BACKEND)
    return [PRODUCTION, *([LOCAL] if local else []), *([] if native else [PYTHON_BACKEND])]


def ensure_environment(files: list[str]) -> None:
    """Writes docker/.env from the example when it is absent, and notes there which files make the stack; none: it is down."""
    if ENVIRONMENT.exists():
        lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    else:
        lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
        empty = {f"{name}=": f"{name}={secrets.token_urlsafe(24)}" for name in SECRETS}
        lines = [empty.get(line, line) for line in lines]
    lines = [line for line in lines if not line.startswith(NOTE)]
    lines += [f"{NOTE}{':'.join(files)}"] if files else []
    descriptor = os.open(ENVIRONMENT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def values() -> dict[str, str]:
    """What docker/.env says; empty when there is none."""
    lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines() if ENVIRONMENT.exists() else []
    entries = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in entries}


def services() -> dict[str, str]:
    """Service -> healthy, starting, unhealthy, running, exited (code); jobs that ended well are left out."""
    listed = compose("ps", "--all", "--format", "json", capture=True)
    if listed.returncode:
        raise StackError("docker compose does not answer; is the Docker engine running?")
    states = {}
    for line in listed.stdout.splitlines():
        entry = json.loads(line)
        if entry["State"] == "exited" and entry["ExitCode"] == 0:
            continue
        code = f" ({entry['ExitCode']})" if entry["State"] == "exited" else ""
        states[entry["Service"]] = entry.get("Health") or entry["State"] + code
    return states


def up(parsed: argparse.Namespace) -> dict[str, Any]:
    """Starts the stack; raises StackError that names what is not healthy and where its log is."""
    noted = [file for file in values().get(NOTE.rstrip("="), "").split(":") if file]
    ensure_environment([PRODUCTION])
    try:
        files = choose_files(parsed.local)
    except StackError:
        ensure_environment(noted)  # nothing was started: what later commands mean has not changed
        raise
    ensure_environment(files)
    started = compose("up", "--detach", "--build", "--wait", "--wait-timeout", str(WAIT_SECONDS))
    states = services()
    bad = sorted(name for name, state in states.items() if state not in GOOD)
    if bad or not states:
        raise StackError(
            f"not healthy: {', '.join(f'{name} {states[name]}' for name in bad) or f'exit status {started.returncode}'}; "
            f"see `cd docker; docker compose logs {' '.join(bad)}`"
        )
    return {"services": states}


def down(parsed: argparse.Namespace) -> dict[str, Any]:
    """Stops and removes the containers; the data stays in the volumes unless it is to go too."""
    before = services()
    done = compose("down", "--remove-orphans", *(["--volumes"] if parsed.volumes else []))
    if done.returncode:
        raise StackError(f"docker compose down ended with status {done.returncode}")
    if ENVIRONMENT.exists():
        ensure_environment([])
    return {"services": {name: "gone" for name in before}}


def publish(parsed: argparse.Namespace) -> dict[str, Any]:
    """Runs the publisher as a job of the stack, for the scene of the settings; what it says is the answer."""
    scene = f"MARQUEE_FEATURES__SPEC={load_settings().scene}"
    arguments = ["--rollback"] if parsed.command == "rollback" else []
    arguments += ["--dry-run"] if getattr(parsed, "dry_run", False) else []
    arguments += ["--release", parsed.release] if parsed.release else []
    done = compose("run", "--rm", "--no-TTY", "--env", scene, "publisher", *arguments, capture=True)
    try:
        said = json.loads(done.stdout.strip().rpartition("\n")[2])
    except json.JSONDecodeError as error:
        raise StackError(f"the publisher ended with status {done.returncode} and no JSON line") from error
    return {**said, "ok": bool(said.get("ok")) and done.returncode == 0}


def check(parsed: argparse.Namespace) -> dict[str, Any]:
    """Runs the consistency check of this checkout against the stack's application."""
    own = values()
    releases = (FOLDER / own.get("MARQUEE_RELEASES", "../data_exchange_center/store/releases")).resolve()
    settings = load_settings().with_values(**{"data.store": str(releases.parent)})
    url = f"http://{own.get('MARQUEE_BIND', '127.0.0.1')}:{own.get('MARQUEE_PORT', '5000')}"
    arguments = ["--requests", str(parsed.requests), "--url", url]
    return run_program("offline_to_online/rank/s3_check_offline_and_online.py", arguments, settings)


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="build, start and wait until all are healthy")
    starting.add_argument("--local", action="store_true", help="Elasticsearch without TLS and password")
    stopping = commands.add_parser("down", help="stop and remove the containers")
    stopping.add_argument("--volumes", action="store_true", help="delete the data too")
    for name in ("publish", "rollback"):
        job = commands.add_parser(name, help=f"{name}: the publisher's job")
        job.add_argument("--release", default="", help="a release's id")
    commands.choices["publish"].add_argument("--dry-run", action="store_true", help="show the plan, change nothing")
    checking = commands.add_parser("check", help="offline against online scores")
    checking.add_argument("--requests", type=int, default=1000, help="how many to send")
    commands.add_parser("status", help="the services' states")
    parsed = made.parse_args(argv)
    actions = {"up": up, "down": down, "publish": publish, "rollback": publish, "check": check}
    try:
        result = actions[parsed.command](parsed) if parsed.command in actions else {"services": services()}
    except MarqueeError as error:
        print(f"stack: {error.message}", file=sys.stderr)
        print(json.dumps({"ok": False, "error": {"code": error.code, "message": error.message}}))
        raise SystemExit(2) from error
    result = {"ok": True, **result}
    print(json.dumps(result))
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
