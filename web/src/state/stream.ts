// One streamed answer into one turn, with the times that the reader is shown.

import { ApiError, Lost } from "../lib/api";
import { events } from "../lib/sse";
import type { FinalEvent } from "../lib/types";
import { parsing } from "../text/markdown";
import { noteFor, type Stats, type Turn } from "./chat";

export async function readAnswer(turn: Turn, response: Response, started: number): Promise<void> {
  if (!response.body) throw new Lost("The answer has no body");
  const painter = new Painter(turn);
  const clock = new Clock(started);
  let final: FinalEvent | null = null;
  try {
    for await (const event of events(response.body)) {
      if (event.data === "[DONE]") break;
      const data = JSON.parse(event.data) as { delta?: string; error?: { code: string; message: string } };
      if (event.name === "error") throw new ApiError(0, data.error?.code ?? "unknown", data.error?.message ?? "");
      if (typeof data.delta === "string") {
        turn.status.value = "streaming";
        clock.tick();
        painter.add(data.delta);
        turn.stats.value = clock.live();
      } else if ("response" in data) {
        final = data as FinalEvent;
      }
    }
  } finally {
    painter.flush();
  }
  if (!final) throw new Lost("The answer broke off");
  turn.answer.value = final.response;
  turn.stats.value = clock.final(final);
  const reason = final.finish_reason;
  const whole = reason === undefined || reason === "stop" || reason === "length";
  turn.note.value = noteFor(whole ? "complete" : "interrupted", final.response, reason, null);
  turn.status.value = whole ? "complete" : "interrupted";
}

const FRAME = 16; // milliseconds

/** Gathers what arrives, so that a fast stream costs one render a frame, or fewer when its text is slow to parse. */
class Painter {
  private text = "";
  private timer = 0;

  constructor(private readonly turn: Turn) {}

  add(piece: string): void {
    this.text += piece;
    this.timer ||= window.setTimeout(() => this.flush(), Math.max(FRAME, parsing * 4));
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = 0;
    // Nothing new arrived: an old answer that is being made again stays until then.
    if (this.text) this.turn.answer.value = this.text;
  }
}

class Clock {
  private first = 0;
  private last = 0;
  private pieces = 0;

  constructor(private readonly started: number) {}

  tick(): void {
    this.last = performance.now();
    this.first ||= this.last;
    this.pieces++;
  }

  live(): Stats {
    const stats: Stats = { firstToken: (this.first - this.started) / 1000, tokens: this.pieces };
    const seconds = (this.last - this.first) / 1000;
    if (seconds > 0.2) stats.rate = (this.pieces - 1) / seconds;
    return stats;
  }

  /** The server counts tokens and knows how long decoding took, free of the network's bursts. */
  final({ usage, timing, history }: FinalEvent): Stats {
    const stats: Stats = { ...this.live() };
    if (!this.first) delete stats.firstToken;
    if (usage) stats.tokens = usage.completion_tokens;
    if (usage && timing && timing.decode_ms > 0) {
      // The first token comes out of the prefill.
      const decoded = usage.completion_tokens - 1;
      if (decoded > 0) stats.rate = decoded / (timing.decode_ms / 1000);
    }
    if (history?.turns_dropped) stats.dropped = history.turns_dropped;
    return stats;
  }
}
