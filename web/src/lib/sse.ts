// Server-sent events out of a response's body. A stream that has begun and then says nothing for longer than any server
// would is lost: a connection can die without a word.

import { Lost } from "./api";

const LONGEST_SILENCE = 60_000; // milliseconds

export interface ServerEvent {
  name: string;
  data: string;
}

export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let timer = 0;
  let begun = false;
  try {
    for (;;) {
      // The first event may take as long as the server allows; it ends that wait itself.
      const silence = new Promise<never>((_, reject) => {
        if (begun) timer = window.setTimeout(() => reject(new Lost("silence")), LONGEST_SILENCE);
      });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      begun = true;
      if (done) return;
      const blocks = (rest + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    // Also ends the request when the reader of the events stops early. Not waited for: nobody may be there to answer.
    void reader.cancel().catch(() => undefined);
  }
}

function parse(block: string): ServerEvent | null {
  let name = "message";
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    else if (line.startsWith("event:")) name = line.slice(6).trim();
  }
  return data.length ? { name, data: data.join("\n") } : null;
}
