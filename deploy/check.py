"""Checks the container files without an engine: `python -m deploy.check`. Silent when all is well.

Where the plugin `docker compose` is at hand, it has a look as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from deploy import health
from deploy.compose import ComposeError, Node, fill_in, lay_over, read, required_variables
from penstock.cli import app
from penstock.settings import Settings

ROOT = Path(__file__).parents[1]
BASE, GPU = ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"
TOP_LEVEL = {"name", "services", "configs", "networks", "volumes"}
SERVICE = {
    *("image", "build", "command", "environment", "configs", "volumes", "networks", "ports"),
    *("depends_on", "healthcheck", "restart", "init", "read_only", "cap_drop", "security_opt"),
    *("tmpfs", "shm_size", "stop_grace_period", "deploy"),
}
#: Which services may know a secret; no other's environment may name it.
KNOWN_TO = {
    "POSTGRES_PASSWORD": {"postgres", "migrate", "api", "dispatcher", "worker"},
    "REDIS_PASSWORD": {"redis", "api", "dispatcher", "worker", "flower"},
    "PENSTOCK_API_KEY": {"api"},
    "FLOWER_BASIC_AUTH": {"flower"},
}
SECRETS = KNOWN_TO.keys()
HEALTHCHECK = {"test", "interval", "timeout", "retries", "start_period"}
_DURATION = re.compile(r"\d+(s|m|h)")
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|KEYS?$|AUTH$|TOKEN")


def problems(raw: Node, override: Node) -> Iterator[str]:
    """One line for everything that is wrong with the compose files, given as they are written."""
    values = {name: f"value-of-{name.lower()}" for name in SECRETS}
    tree = fill_in(raw, values)
    both = lay_over(tree, fill_in(override, values))
    yield from _secrets(raw)
    found = [*_structure(tree)]
    yield from (f"{BASE.name}: {problem}" for problem in found)
    yield from (f"{GPU.name}: {problem}" for problem in _structure(both) if problem not in found)
    devices = both["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    if devices[0] != {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}:
        yield f"{GPU.name}: the worker has no NVIDIA GPU"


def _secrets(raw: Node) -> Iterator[str]:
    if (required := required_variables(raw["services"])) != SECRETS:
        yield f"{BASE.name}: required are {sorted(required)}, not {sorted(SECRETS)}"
    for name in sorted(SECRETS):
        try:
            fill_in(raw, {other: "x" for other in SECRETS - {name}})
        except ComposeError:
            continue
        yield f"{BASE.name}: starts without {name}"
    for name, service in raw["services"].items():
        yield from (f"{BASE.name}: {name} {problem}" for problem in _known(name, service))
    yield from (f"{BASE.name}: flower {problem}" for problem in _flower(raw["services"]["flower"]))
    example = dict(_assignments(ROOT / ".env.example"))
    for name in sorted(SECRETS):
        if example.get(name) != "":
            yield f".env.example: {name} must be there, and empty"


def _known(name: str, service: Node) -> Iterator[str]:
    """Secrets come from variables that have to be set, and go to who needs them."""
    environment = service.get("environment") or {}
    for key, value in environment.items():  # None: handed on from outside
        if _SECRET_NAME.search(key) and value is not None and not required_variables(value):
            yield f"has a secret in plain sight, {key}"
    for secret in sorted(required_variables(environment)):
        if name not in KNOWN_TO.get(secret, ()):
            yield f"has no need of {secret}"


def _flower(service: Node) -> Iterator[str]:
    """It is ours, which is read-only, behind a password, and told nothing by Flower's own names."""
    environment = service.get("environment") or {}
    if service.get("command") != ["penstock", "flower"]:
        yield "has to run `penstock flower`, which is read-only"
    if "FLOWER_BASIC_AUTH" not in required_variables(
        environment.get("PENSTOCK_FLOWER__BASIC_AUTH", "")
    ):
        yield "starts without a password"
    if own := sorted(name for name in environment if name.startswith("FLOWER_")):
        yield f"is given options of its own, {own}"


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def _structure(tree: Node) -> Iterator[str]:
    unknown = {key for key in tree if not key.startswith("x-")} - TOP_LEVEL
    if unknown:
        yield f"unknown sections {sorted(unknown)}"
    for name, service in tree["services"].items():
        for rule in (_keys, _image, _health, _order, _ports, _mounts, _paths, _command, _variables):
            for problem in rule(service, tree):
                yield f"{name} {problem}"


def _keys(service: Node, tree: Node) -> Iterator[str]:
    if unknown := service.keys() - SERVICE:
        yield f"has unknown keys {sorted(unknown)}"
    if service.get("restart") not in ("no", "unless-stopped"):
        yield "has no restart policy"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"


def _image(service: Node, tree: Node) -> Iterator[str]:
    tag = service.get("image", "").rpartition(":")[2]
    if not re.search(r"\d", tag) or tag == "latest":
        yield "needs an image with a version"
    if "build" in service and not (ROOT / service["build"]["dockerfile"]).is_file():
        yield "is built from a file that is missing"


def _health(service: Node, tree: Node) -> Iterator[str]:
    check = service.get("healthcheck")
    if check is None:
        if service.get("restart") != "no":
            yield "has no health check"
        return
    if check.keys() != HEALTHCHECK:
        yield f"has a health check with {sorted(check.keys() ^ HEALTHCHECK)} amiss"
    for key in ("interval", "timeout", "start_period"):
        if not _DURATION.fullmatch(str(check.get(key))):
            yield f"has a health check whose {key} is no duration"
    test = check.get("test") or [""]
    if test[0] not in ("CMD", "CMD-SHELL"):
        yield "has a health check without a command"
    if test[1:4] == ["python", "-m", "deploy.health"] and test[4] not in health.CHECKS:
        yield f"has the unknown health check {test[4]}"


def _order(service: Node, tree: Node) -> Iterator[str]:
    for other, how in service.get("depends_on", {}).items():
        target = tree["services"].get(other)
        condition = how.get("condition")
        if target is None:
            yield f"depends on {other}, which is missing"
        elif condition == "service_healthy" and "healthcheck" not in target:
            yield f"waits for the health of {other}, which has no check"
        elif condition == "service_completed_successfully" and target["restart"] != "no":
            yield f"waits for the end of {other}, which is restarted"
        elif condition not in ("service_healthy", "service_completed_successfully"):
            yield f"depends on {other} under no condition"


def _ports(service: Node, tree: Node) -> Iterator[str]:
    for port in service.get("ports", []):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
            yield f"opens {port} to more than this machine"


def _mounts(service: Node, tree: Node) -> Iterator[str]:
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            if not (ROOT / source).exists():
                yield f"mounts {source}, which is missing"
        elif source not in tree["volumes"]:
            yield f"mounts the undeclared volume {source}"
    for config in service.get("configs", []):
        if config["source"] not in tree["configs"]:
            yield f"uses the undeclared config {config['source']}"
    for network in service.get("networks", []):
        if network not in tree["networks"]:
            yield f"uses the undeclared network {network}"


def _paths(service: Node, tree: Node) -> Iterator[str]:
    """What is written to a container's own disk is gone with it."""
    targets = {mount.split(":")[1] for mount in service.get("volumes", [])}
    command = service.get("command") or [""]
    paths = {name: path for name, path in (service.get("environment") or {}).items() if path}
    if command == ["penstock", "serve"] and "PENSTOCK_BLOBS__PATH" not in paths:
        yield "keeps files nowhere: PENSTOCK_BLOBS__PATH is not set"
    for name, path in paths.items():
        if name.endswith("__PATH") and path not in targets:
            yield f"has {path} for {name}, which is no volume"


def _command(service: Node, tree: Node) -> Iterator[str]:
    command = service.get("command") or [""]
    known = getattr(typer.main.get_command(app), "commands", {})
    if command[0] == "penstock" and command[1] not in known:
        yield f"runs the unknown command {' '.join(command)}"


def _variables(service: Node, tree: Node) -> Iterator[str]:
    for name in service.get("environment", {}):
        if name.startswith("PENSTOCK_") and not _is_setting(name):
            yield f"sets {name}, which is no setting"


def _is_setting(name: str) -> bool:
    section, _, field = name.removeprefix("PENSTOCK_").lower().partition("__")
    group = Settings.model_fields.get(section)
    if group is None or not field:
        return group is not None
    return field in getattr(group.annotation, "model_fields", {})


def image_problems() -> Iterator[str]:
    """One line for everything that is wrong with the Dockerfile and what surrounds it."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    if not users or users[-1] in ("root", "0"):
        yield "Dockerfile: runs as root"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            if not (ROOT / source).exists():
                yield f"Dockerfile: copies {source}, which is missing"
            if f"!{source.split('/')[0]}" not in ignored:
                yield f".dockerignore: leaves out {source}"


def engine_problems() -> Iterator[str]:
    """What `docker compose` says, where its plugin is installed."""
    docker = shutil.which("docker")
    if docker is None or _run(docker, "compose", "version").returncode:
        return
    for files in ([BASE], [BASE, GPU]):
        chosen = [part for file in files for part in ("--file", str(file))]
        done = _run(docker, "compose", *chosen, "config", "--quiet")
        if done.returncode:
            yield f"docker compose: {done.stderr.strip()}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {name: "x" for name in SECRETS}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=30
    )


def main() -> int:
    """Print what is wrong; the exit status."""
    found = [*problems(read(BASE), read(GPU)), *image_problems(), *engine_problems()]
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
