// Post a job and follow it, and read a reply as it is written. No dependencies.

/** Submit prompts; `told` gets {total, completed, failed} now and then. Gives the answers. */
export async function runJob(messages, told, fields = {}) {
  const posted = await fetch("/batch-generate", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
    body: JSON.stringify({ messages, ...fields }),
  });
  const job = await posted.json();
  if (!posted.ok) throw new Error(job.detail);
  await new Promise((resolve) => {
    // The browser takes a stream that was cut up again by itself.
    const events = new EventSource(`/batch-result/${job.request_id}/events`);
    events.addEventListener("progress", (event) => told(JSON.parse(event.data)));
    events.addEventListener("end", () => resolve(events.close()));
  });
  return (await fetch(`/batch-result/${job.request_id}`)).json();
}

/** Say one thing; yields the pieces of the reply. */
export async function* chat(message, fields = {}, base = "") {
  const answer = await fetch(`${base}/chat/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ message, ...fields }),
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  for await (const { type, content } of events(answer.body)) {
    if (type === "error") throw new Error(content);
    if (type === "chunk") yield content;
  }
}

/** The data of server-sent events, parsed, from a stream of bytes that is cut anywhere. */
export async function* events(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = "", next; !(next = await reader.read()).done; ) {
      const parts = (text + next.value).split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
      }
    }
  } finally {
    await reader.cancel(); // whoever stops reading wants no more of the answer
  }
}
