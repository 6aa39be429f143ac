"""`WS /ws/chat/{user_id}/{session_id}`: a conversation on one socket."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from api.access_token import stream_owner
from api.dependencies import Parts
from api.errors import problem_of
from api.talking import Talk
from penstock.errors import PenstockError
from penstock.keys import Scope

router = APIRouter(tags=["chat"])

#: And HTTP's status: a browser does not see that of a refused handshake. 4401: no or a bad key.
REFUSED = 4000


@router.websocket("/ws/chat/{user_id}/{session_id}")
async def chat_socket(socket: WebSocket, user_id: str, session_id: str) -> None:
    """Send a text, or `{"query", "history": [[user, assistant], ...]}`."""
    parts: Parts = socket.app.state.parts
    await socket.accept()
    try:
        await stream_owner(socket, parts, Scope.CHAT)
    except PenstockError as error:
        await socket.close(REFUSED + problem_of(error).status, error.message)
        return
    await Talk(parts, socket, user_id, session_id).run()
