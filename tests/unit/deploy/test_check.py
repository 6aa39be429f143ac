"""The compose check passes what is there, and sees each thing that could go wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.check import BASE, GPU, image_problems, problems
from deploy.compose import ComposeError, Node, fill_in, lay_over, read, required_variables


def test_the_files_as_they_are_pass() -> None:
    assert [*problems(read(BASE), read(GPU)), *image_problems()] == []


def _set(*path: str, value: object) -> Callable[[Node], None]:
    def change(tree: Node) -> None:
        node = tree["services"]
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value

    return change


def _drop(*path: str) -> Callable[[Node], None]:
    def change(tree: Node) -> None:
        node = tree["services"]
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("redis", "image", value="redis:latest"), "redis needs an image with a version"),
        (_set("redis", "image", value="redis"), "redis needs an image with a version"),
        (
            _set("postgres", "environment", "POSTGRES_PASSWORD", value="hunter2"),
            "postgres has a secret in plain sight, POSTGRES_PASSWORD",
        ),
        (
            _set("flower", "environment", "PENSTOCK_FLOWER__BASIC_AUTH", value="${F:-a:b}"),
            "starts without FLOWER_BASIC_AUTH",
        ),
        (_drop("flower", "environment", "PENSTOCK_FLOWER__BASIC_AUTH"), "without a password"),
        (
            _set("flower", "command", value=["celery", "flower"]),
            "flower has to run `penstock flower`, which is read-only",
        ),
        (
            _set("flower", "environment", "FLOWER_UNAUTHENTICATED_API", value="true"),
            "flower is given options of its own, ['FLOWER_UNAUTHENTICATED_API']",
        ),
        (
            _set("flower", "environment", "PENSTOCK_DATABASE__URL", value="${POSTGRES_PASSWORD:?}"),
            "flower has no need of POSTGRES_PASSWORD",
        ),
        (
            _set("worker", "environment", "PENSTOCK_API__KEYS", value="${PENSTOCK_API_KEY:?}"),
            "worker has no need of PENSTOCK_API_KEY",
        ),
        (
            _set("api", "command", value=["penstock", "server"]),
            "api runs the unknown command penstock server",
        ),
        (
            _set("api", "environment", "PENSTOCK_API__PROT", value="1"),
            "api sets PENSTOCK_API__PROT, which is no setting",
        ),
        (_set("api", "ports", value=["8000:8000"]), "api opens 8000:8000 to more than"),
        (_set("worker", "volumes", value=["m:/m"]), "worker mounts the undeclared volume m"),
        (_set("api", "volumes", value=[]), "api has /blobs for PENSTOCK_BLOBS__PATH, which is no"),
        (_drop("api", "environment", "PENSTOCK_BLOBS__PATH"), "api keeps files nowhere"),
        (_set("worker", "networks", value=["n"]), "worker uses the undeclared network n"),
        (
            _set("prometheus", "volumes", value=["./no.yml:/x:ro"]),
            "prometheus mounts ./no.yml, which is missing",
        ),
        (_set("worker", "comand", value=[]), "worker has unknown keys ['comand']"),
        (_drop("worker", "healthcheck"), "worker has no health check"),
        (_drop("redis", "healthcheck"), "api waits for the health of redis, which has no check"),
        (
            _set("redis", "healthcheck", "interval", value="5"),
            "redis has a health check whose interval is no duration",
        ),
        (_set("migrate", "restart", value="unless-stopped"), "waits for the end of migrate"),
        (_drop("dispatcher", "restart"), "dispatcher has no restart policy"),
        (
            _set("flower", "depends_on", value={"rediss": {"condition": "service_healthy"}}),
            "flower depends on rediss, which is missing",
        ),
    ],
)
def test_what_is_broken_is_named(change: Callable[[Node], None], expected: str) -> None:
    tree = read(BASE)
    # YAML anchors share their mappings: the change must not reach the other services.
    tree = lay_over(tree, {})
    tree["services"] = {name: lay_over(facts, {}) for name, facts in tree["services"].items()}
    for service in tree["services"].values():
        service["environment"] = dict(service.get("environment") or {})

    change(tree)

    assert expected in "\n".join(problems(tree, read(GPU)))


def test_variables_are_filled_in_as_an_engine_does() -> None:
    values = {"A": "1", "EMPTY": ""}

    assert fill_in("${A} $A ${B:-two} ${EMPTY:-x} $$A", values) == "1 1 two x $A"
    with pytest.raises(ComposeError, match="B is needed: say it"):
        fill_in({"a": ["${B:?say it}"]}, values)
    assert required_variables({"a": ["${B:?x}", {"c": "${C:?y} ${A}"}]}) == {"B", "C"}


def test_an_override_merges_mappings_and_adds_to_lists() -> None:
    base = {"a": {"b": 1, "l": [1]}, "c": 1}

    assert lay_over(base, {"a": {"l": [2], "d": 3}, "c": 2}) == {
        "a": {"b": 1, "l": [1, 2], "d": 3},
        "c": 2,
    }
