"""A conversation whose replies are shown while they are written.

python -m examples.quickstart.stream          # or: … stream http://host:port
"""

import sys

from penstock import Client


def main(url: str = "http://127.0.0.1:8000") -> None:
    """Say two things in one conversation."""
    conversation = None
    with Client(url) as client:
        for message in ("My name is Ada.", "What is my name?"):
            print(f"> {message}")
            with client.chat_stream(message, conversation_id=conversation) as stream:
                for piece in stream:
                    print(piece, end="", flush=True)
            conversation = stream.reply.conversation_id
            print(f"\n({stream.reply.tokens_generated} tokens)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
