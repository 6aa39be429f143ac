"""Which API a server speaks, and the target that speaks it. Asks two cheap questions at most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from penstock.client import AsyncClient
from penstock.client.call import checked_url, is_proxied, key_headers
from penstock.errors import InvalidRequest, PenstockError, Unauthorized, Unavailable
from penstock.loadtest.plan import Api, Plan
from penstock.loadtest.targets import OpenAITarget, PenstockChat, PenstockJob, Target

PROBE_TIMEOUT = 10.0  # seconds
CONNECT_TIMEOUT = 5.0  # seconds


@asynccontextmanager
async def reaching(
    url: str, api: Api | None, model: str | None, key: str | None, plan: Plan
) -> AsyncIterator[tuple[Target, str]]:
    """A target for the plan, and one line that says what it is. Raises Unavailable, Unauthorized
    and InvalidRequest."""
    root = checked_url(url).removesuffix("/v1")
    timeout = httpx2.Timeout(plan.timeout, connect=CONNECT_TIMEOUT)
    limits = httpx2.Limits(max_connections=plan.concurrency)
    async with httpx2.AsyncClient(
        base_url=f"{root}/v1",
        headers=key_headers(key),
        timeout=timeout,
        limits=limits,
        trust_env=is_proxied(root),
    ) as http:
        api = api or ("penstock" if plan.kind == "job" else await _spoken(http, root))
        if api == "openai":
            if plan.kind == "job":
                raise InvalidRequest("Jobs are posted to Penstock's own API.", param="api")
            name = model or await _first_model(http, root)
            target = OpenAITarget(http, name, plan.temperature)
            yield target, f"{root}/v1/chat/completions, {name}"
            return
        async with AsyncClient(root, key, timeout=plan.timeout, retry_for=0) as client:
            kind = PenstockJob if plan.kind == "job" else PenstockChat
            path = "/batch-generate" if plan.kind == "job" else "/chat/stream"
            yield kind(client, plan, model), f"{root}{path}, {model or 'the served model'}"


async def _spoken(http: httpx2.AsyncClient, root: str) -> Api:
    if (await _get(http, "/models", root)).status_code == httpx2.codes.OK:
        return "openai"
    if (await _get(http, f"{root}/healthz", root)).status_code == httpx2.codes.OK:
        return "penstock"
    raise Unavailable(f"{root} speaks neither OpenAI's API nor Penstock's.")


async def _first_model(http: httpx2.AsyncClient, root: str) -> str:
    answer = await _get(http, "/models", root)
    try:
        return str(answer.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise PenstockError(f"{root} does not say which models it has; name one by --model.") from (
            None
        )


async def _get(http: httpx2.AsyncClient, path: str, root: str) -> httpx2.Response:
    try:
        answer = await http.get(path, timeout=PROBE_TIMEOUT)
    except httpx2.TransportError:
        raise Unavailable(f"No answer from {root}.") from None
    if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        raise Unauthorized(f"{root} wants a key: set PENSTOCK_API_KEY.")
    return answer
