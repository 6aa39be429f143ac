"""OpenAI's own client, with nothing changed but its address.

python -m examples.quickstart.openai_client   # or: … openai_client http://host:port
"""

import os
import sys

from openai import OpenAI


def main(url: str = "http://127.0.0.1:8000") -> None:
    """One answer as a whole, one in pieces."""
    key = os.environ.get("PENSTOCK_API_KEY", "none is set")
    with OpenAI(base_url=f"{url}/v1", api_key=key, timeout=120) as client:
        model = client.models.list().data[0].id
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What does json.dumps do?"}],
            max_tokens=40,
        )
        print(answer.choices[0].message.content)
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "And json.loads?"}],
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            elif chunk.usage:
                print(f"\n({chunk.usage.completion_tokens} tokens)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
