"""Whatever the OpenAPI document allows, and much that it does not: no 5xx, and every answer as it
is declared. Reads the live document, so new routes are in it. To look longer:
`pytest tests/contract/test_fuzzing.py --fuzz-examples 500 --timeout 0`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

with warnings.catch_warnings():  # its own dependencies' are not ours
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

from api.app import create_app
from storage.blobs import LocalBlobs
from storage.database import Database
from tests.contract.conftest import CONFIG
from tests.contract.support import serving, working
from tests.support.keys import SECRET, add, bearer
from workers.queues import WakeUps

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
#: Answers as long as they please, or none: a model's worker is not here.
SECONDS = 10.0
#: Of one run over all routes, unless the command line says how many each is to have.
REQUESTS = 100


@pytest.fixture
def url(
    database: Database, wake_ups: WakeUps, blobs: LocalBlobs, registered: None
) -> Iterator[str]:
    config = replace(CONFIG, key_secret=SECRET, chat_timeout=SECONDS)
    with database.begin() as conn:  # the worker that is registered stays alive meanwhile
        conn.exec_driver_sql("UPDATE workers SET beat_at = now() + interval '1 day'")
    with working(database), serving(create_app(config, database, wake_ups, blobs)) as url:
        yield url


@pytest.fixture(params=["with a key", "without a key"])
def headers(request: pytest.FixtureRequest, database: Database) -> dict[str, str]:
    key = add(database, scopes=("admin",))
    return bearer(key) if request.param == "with a key" else {}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_every_answer_is_one_that_is_declared(
    url: str, headers: dict[str, str], mode: GenerationMode, request: pytest.FixtureRequest
) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found: list[Any] = list(schema.get_all_operations())
    operations = [one.ok() for one in found]
    assert len(operations) > 8
    examples = request.config.getoption("--fuzz-examples") or max(2, REQUESTS // len(operations))
    for operation in operations:
        _fuzz(operation, mode, headers, examples)


def _fuzz(operation: Any, mode: GenerationMode, headers: dict[str, str], examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def look(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=3 * SECONDS)

    with suppress(Unsatisfiable):  # of a route that takes nothing, nothing can be wrong
        look()
