"""Claimed prompts in the engine's terms: tokens, and what is asked of them; or why one cannot run.

Knows the codec and stored parameters; knows no engine, no SQL and no lease protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from batching.requests import EngineRequest
from models.runner import Codec
from penstock.errors import InvalidRequest, PromptError
from storage.records import RAW, ClaimedRequest, ClaimedShard, Messages, Params
from storage.states import Lane
from workers import history, params
from workers.lease import Lease
from workers.params import TRIM

Encoded = tuple[int, ...] | InvalidRequest


class Refused(Exception):
    """This prompt cannot run, whatever its neighbors do. `tokens`: those it has, where they are
    the reason."""

    def __init__(self, reason: PromptError, message: str, tokens: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.tokens = tokens


class Prompts:
    """Makes engine requests of claimed ones. `context`: tokens of prompt and answer together."""

    def __init__(self, codec: Codec, context: int) -> None:
        self._codec = codec
        self._context = context

    def of(self, lease: Lease) -> Iterator[tuple[int, EngineRequest | Refused]]:
        """By position in the shard, what the engine gets, or the reason why a prompt cannot run.
        What they have in common is looked up once, and chats are encoded together."""
        patterns: dict[int, EngineRequest | Refused] = {}  # by the parameters' identity
        for request in lease.shard.requests:
            asked = lease.asked_of(request.position)
            if id(asked) not in patterns:
                patterns[id(asked)] = self._pattern(lease, asked)
        tokens = self._together(lease)
        for request in lease.shard.requests:
            pattern = patterns[id(lease.asked_of(request.position))]
            yield request.position, self._one(lease, request, pattern, tokens.get(request.position))

    def _one(
        self,
        lease: Lease,
        request: ClaimedRequest,
        pattern: EngineRequest | Refused,
        tokens: Encoded | None,
    ) -> EngineRequest | Refused:
        if isinstance(pattern, Refused):
            return pattern
        try:
            if tokens is None:
                prompt = self._prompt(lease, request, pattern.sampling.max_tokens)
            else:
                prompt = self._fitting(tokens)
        except Refused as refused:
            return refused
        return replace(pattern, id=lease.request_id(request.position), prompt=prompt)

    def _together(self, lease: Lease) -> dict[int, Encoded]:
        """Chats that are sent as they are, by position."""
        shard = lease.shard
        if shard.params.get(TRIM):
            return {}
        chats = {
            request.position: _with_system(shard, request.messages)
            for request in shard.requests
            if request.messages[0][0] != RAW
        }
        return dict(zip(chats, self._codec.encode_chats(list(chats.values())), strict=True))

    def _pattern(self, lease: Lease, asked: Params) -> EngineRequest | Refused:
        """All but the prompt and its id, or why nothing with these parameters can run."""
        shard = lease.shard
        try:
            choices = tuple(map(self._codec.encode_answer, params.labels(asked)))
        except InvalidRequest as error:
            return Refused(PromptError.INVALID_REQUEST, error.message)
        if not all(choices):
            message = "The model's tokenizer has no tokens for one of the choices."
            return Refused(PromptError.INVALID_REQUEST, message)
        return EngineRequest(
            id="",
            lane="express" if shard.lane is Lane.EXPRESS else "bulk",
            prompt=(),
            sampling=params.sampling_params(asked),
            alone=shard.alone,
            n=params.answers(asked),
            choices=choices,
            deadline=lease.deadline,
            group=shard.batch_id,
        )

    def _prompt(self, lease: Lease, request: ClaimedRequest, answer: int) -> tuple[int, ...]:
        """The tokens of a request; of one that may be trimmed, the lease notes how much was."""
        if not lease.shard.params.get(TRIM):
            return self._encode(lease.shard, request.messages)
        chat = history.Chat((*request.history, *request.messages))
        most = self._context - history.room(self._context, answer)

        def fitting(kept: Messages) -> tuple[int, ...] | None:
            with suppress(Refused):
                prompt = self._encode(lease.shard, kept)
                return prompt if len(prompt) <= most else None
            return None

        fitted = history.fit(chat, fitting)
        lease.dropped[request.position] = request.omitted + (
            chat.earlier if fitted is None else fitted.dropped
        )
        if fitted is None:  # alone it may take room of the answer, or is refused with the reason
            return self._encode(lease.shard, chat.without(chat.earlier))
        return fitted.prompt

    def _encode(self, shard: ClaimedShard, messages: Messages) -> tuple[int, ...]:
        if messages[0][0] != RAW:
            (tokens,) = self._codec.encode_chats([_with_system(shard, messages)])
            return self._fitting(tokens)
        try:
            return self._fitting(self._codec.encode_text(messages[0][1]))
        except InvalidRequest as error:
            raise Refused(PromptError.INVALID_REQUEST, error.message) from None

    def _fitting(self, tokens: Encoded) -> tuple[int, ...]:
        """Raises `Refused` for what has no tokens, or too many."""
        if isinstance(tokens, InvalidRequest):
            raise Refused(PromptError.INVALID_MESSAGE, tokens.message)
        if len(tokens) >= self._context:
            raise Refused(
                PromptError.TOO_LONG,
                f"The prompt has {len(tokens)} tokens; the model's context of {self._context} "
                "has to hold it and the answer.",
                len(tokens),
            )
        return tokens


def _with_system(shard: ClaimedShard, messages: Messages) -> Messages:
    if shard.system and messages[0][0] != "system":
        return (("system", shard.system), *messages)
    return messages
