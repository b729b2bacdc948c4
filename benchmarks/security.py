"""Looks for secrets in the repository, its history and the image's layers, and for known weaknesses of the dependencies.

    python benchmarks/security.py            everything that this machine can do; says what it cannot

Three parts:

    repository    every tracked file and every line that history ever added, by detect-secrets' detectors
    image         `docker save` of the application's image: its configuration, history and every file of every layer hold
                  none of the values in docker/.env, no file that keys or settings usually lie in, and nothing that the
                  detectors know in the files that are ours
    dependencies  requirements*.txt by pip-audit against PyPI's advisories; findings must be explained in docs/security.md
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file, scan_line
from detect_secrets.settings import transient_settings
from tqdm import tqdm

from benchmarks.common import machine
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from docker.stack import SECRETS, values

IMAGE = "marquee-app:latest"
AUDITOR = ROOT / ".venv-audit" / "bin" / "pip-audit"
EXPLAINED = ROOT / "docs" / "security.md"
OUR_FOLDERS = ("app/", "store/", "models/", "certificates/")
SUSPICIOUS = (
    ".env",
    "*.key",
    "id_rsa*",
    "id_ed25519*",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    "marquee.toml",
    "*.p12",
)
PUBLIC_KEYS = "*/site-packages/*/test*/*"  # of packages' own tests: everybody has them
CHECKSUMS = "HexHighEntropyString"
LONGEST_LINE = 2000  # longer ones are data
AUDIT_TIMEOUT_S = 300


def tracked_files() -> list[Path]:
    """Every file that git knows here."""
    listed = _git("ls-files", "-z").split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def detectors() -> AbstractContextManager[Any]:
    """All of detect-secrets' detectors but the one for random hexadecimal text, which takes every file's checksum for a secret."""
    known: Iterable[type[Any]] = get_mapping_from_secret_type_to_class().values()
    return transient_settings({"plugins_used": [{"name": one.__name__} for one in known if one.__name__ != CHECKSUMS]})


def secrets_in_files(paths: Iterable[Path]) -> list[str]:
    """Places (`file:line kind`) that look like secrets."""
    with detectors():
        return [
            f"{path.relative_to(ROOT)}:{found.line_number} {found.type}"
            for path in paths
            for found in scan_file(str(path))
        ]


def secrets_in_history() -> tuple[int, list[str]]:
    """How many added lines history has, and those that look like secrets, as `commit kind`."""
    commit, lines, found = "", 0, []
    with detectors():
        for line in _git("log", "--all", "--patch", "--no-color", "--format=commit %h").splitlines():
            if line.startswith("commit "):
                commit = line.split()[1]
            elif line.startswith("+") and not line.startswith("+++") and len(line) < LONGEST_LINE:
                lines += 1
                if "allowlist secret" not in line:
                    found += [f"{commit} {secret.type}" for secret in scan_line(line[1:]) if secret.type in CERTAIN]
    return lines, found


# of a single line these are certain; entropy alone is judged with its file around it, in secrets_in_files
CERTAIN = ("Private Key", "AWS Access Key", "GitHub Token", "Slack Token", "JSON Web Token")


def image_findings(image: str, known: Iterable[str]) -> dict[str, Any]:
    """What the image's configuration and layers hold of secrets.

    Args:
        known: values that must be nowhere in it.

    Returns:
        state ("scanned", or why not), layers, files, found.
    """
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "image", "inspect", image], capture_output=True, check=False).returncode:
        return {"state": f"not scanned: no Docker engine, or no image {image}; run `make up` first", "found": []}
    needles = [value.encode() for value in known if value]
    layers = files = 0
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="marquee-image-") as name:
        archive = Path(name) / "image.tar"
        subprocess.run([docker, "save", "--output", str(archive), image], check=True)
        with tarfile.open(archive) as whole:
            manifest = json.load(_opened(whole, "manifest.json"))[0]
            configuration = _opened(whole, manifest["Config"]).read()
            found += [f"image configuration: a value of docker/.env ({n})" for n in _holding(configuration, needles)]
            for layer in tqdm(manifest["Layers"], "layers", leave=False):
                layers += 1
                with tarfile.open(fileobj=_opened(whole, layer)) as content:
                    for place, data in layer_files(content):
                        files += 1
                        found += file_findings(place, data, needles)
    return {"state": "scanned", "layers": layers, "files": files, "known_values": len(needles), "found": found}


def layer_files(layer: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Path and content of every plain file of a layer."""
    for member in layer:
        if member.isfile() and (file := layer.extractfile(member)) is not None:
            yield member.name.removeprefix("./"), file.read()


def file_findings(place: str, data: bytes, needles: list[bytes]) -> list[str]:
    """What is wrong with one file of a layer."""
    name = place.rpartition("/")[2]
    found = [f"{place}: a value of docker/.env ({number})" for number in _holding(data, needles)]
    if any(fnmatch(name, pattern) for pattern in SUSPICIOUS) and not fnmatch(place, PUBLIC_KEYS):
        found.append(f"{place}: a file that keys or settings usually lie in")
    if place.startswith(OUR_FOLDERS):
        with tempfile.NamedTemporaryFile(suffix=f"-{name}") as copy, detectors():
            Path(copy.name).write_bytes(data)
            found += [f"{place}:{secret.line_number} {secret.type}" for secret in scan_file(copy.name)]
    return found


def dependency_findings(*requirements: Path) -> dict[str, Any]:
    """What PyPI's advisories say about the pinned dependencies.

    Args:
        requirements: files of pins; those of the product when none is given.

    Returns:
        state, audited, unaudited (how many the service did not know), weaknesses (`name version id`), unexplained: those whose id
        docs/security.md does not name.
    """
    auditor = str(AUDITOR) if AUDITOR.exists() else shutil.which("pip-audit")
    if not auditor:
        return {"state": "not audited: pip-audit is not installed; run `make audit`", "unexplained": []}
    files = requirements or (ROOT / "requirements.txt", ROOT / "requirements-text.txt")
    named = [part for file in files for part in ("--requirement", str(file))]
    command = [auditor, *named, "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S, check=False)
        entries = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return {
            "state": f"not audited: the advisory service cannot be reached ({type(error).__name__})",
            "unexplained": [],
        }
    audited = [entry for entry in entries if "vulns" in entry]
    weaknesses = [
        f"{entry['name']} {entry['version']} {weakness['id']}" for entry in audited for weakness in entry["vulns"]
    ]
    explained = EXPLAINED.read_text(encoding="utf-8") if EXPLAINED.exists() else ""
    state = "audited" if audited else "not audited: the package index here has no advisories"
    return {
        "state": state,
        "audited": len(audited),
        "unaudited": len(entries) - len(audited),
        "weaknesses": weaknesses,
        "unexplained": [entry for entry in weaknesses if not re.search(rf"\b{entry.split()[-1]}\b", explained)],
    }


def security(image: str) -> dict[str, Any]:
    """All three parts; `ok` when nothing was found, `complete` when every part could be looked at."""
    found = secrets_in_files(paths := tracked_files())
    lines, in_history = secrets_in_history()
    own = values()
    layers = image_findings(image, [own.get(name, "") for name in SECRETS])
    dependencies = dependency_findings()
    return {
        "name": "security",
        "machine": machine(),
        "ok": not (found or in_history or layers["found"] or dependencies["unexplained"]),
        "complete": layers["state"] == "scanned" and dependencies["state"] == "audited",
        "repository": {"files": len(paths), "found": found, "history_lines": lines, "found_in_history": in_history},
        "image": layers,
        "dependencies": dependencies,
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def _opened(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    return file if file is not None else io.BytesIO()


def _holding(data: bytes, needles: list[bytes]) -> list[int]:
    return [number for number, needle in enumerate(needles) if needle in data]


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--image", default=IMAGE, help="the application's image")

    def step(_: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        result = security(parsed.image)
        for part in ("image", "dependencies"):
            if result[part]["state"].startswith("not"):
                print(f"{part}: {result[part]['state']}", file=sys.stderr)
        return result

    run_step("security", arguments, step, argv)


if __name__ == "__main__":
    main()
