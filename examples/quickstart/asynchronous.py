"""A job and nine chats at once, on an event loop.

python -m examples.quickstart.asynchronous    # or: … asynchronous http://host:port
"""

import asyncio
import sys

from penstock import AsyncClient

WORDS = ["river", "stone", "window", "letter", "garden", "winter", "signal", "paper", "engine"]


async def main(url: str = "http://127.0.0.1:8000") -> None:
    """Print the chats' answers, then the job's, each as soon as it is there."""
    async with AsyncClient(url) as client:
        job = await client.submit([f"A rhyme for {word}?" for word in WORDS], max_tokens=10)
        chats = [client.chat(f"What is a {word}?", max_tokens=20) for word in WORDS]
        for reply in asyncio.as_completed(chats, timeout=600):
            print("chat:", (await reply).response)
        async for answer in job.as_finished(timeout=600):
            print("job:", answer.index, answer.text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
