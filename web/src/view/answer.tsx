// What the model answered, how fast, and what can be done about it.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { copyText } from "../lib/browser";
import { spanOf } from "../lib/time";
import { retry, sendNow, takeBack } from "../state/ask";
import type { Stats, Turn } from "../state/chat";
import { busy } from "../state/chat";
import { say } from "../lib/notice";
import { type Block, blocks, render } from "../text/markdown";
import { IconButton } from "./parts";

export function Answer({ turn, last }: { turn: Turn; last: boolean }) {
  const status = turn.status.value;
  const working = status === "asking" || status === "streaming" || status === "pending";
  const text = turn.answer.value;
  const idle = last && !busy.value;
  const broken = status === "interrupted" || status === "failed";
  const copy = () => void copyText(text).then((done) => say(done ? "Answer copied" : "The browser does not let this page copy"));
  return (
    <div class={`answer ${status}`} role="group" aria-label="Answer" aria-busy={working}>
      <h2 class="offscreen">The answer</h2>
      {text && <Prose text={text} />}
      {working && status !== "streaming" && (
        <p class="dots">
          <span />
          <span />
          <span />
          <b class="offscreen">{status === "pending" ? "Being answered elsewhere" : "Thinking"}</b>
        </p>
      )}
      {status === "complete" && !text.trim() && <p class="note">The model gave an empty answer.</p>}
      {status === "waiting" && <Waiting turn={turn} />}
      {turn.note.value && (
        <p class={`note ${broken ? "broken" : ""}`}>
          <span>{turn.note.value}</span>
          {idle && broken && (
            <button type="button" class="plain" onClick={() => void retry(turn)}>
              Try again
            </button>
          )}
        </p>
      )}
      {!working && status !== "waiting" && (
        <div class="tools">
          {text && <IconButton icon="copy" label="Copy answer" onClick={copy} />}
          {idle && !broken && <IconButton icon="retry" label="Another answer" onClick={() => void retry(turn)} />}
          <Figures stats={turn.stats.value} />
        </div>
      )}
      {status === "streaming" && (
        <div class="tools">
          <Figures stats={turn.stats.value} />
        </div>
      )}
    </div>
  );
}

function Prose({ text }: { text: string }) {
  // A definition far below can change a link above: then every block is made from the whole text's tokens anyway,
  // because its source is the same only when its meaning is.
  return (
    <div class="prose" dir="auto">
      {blocks(text).map((block, index) => (
        <Piece key={index} block={block} />
      ))}
    </div>
  );
}

function Piece({ block }: { block: Block }) {
  const place = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => place.current?.replaceChildren(render(block)), [block.source]);
  return <div class="piece" ref={place} />;
}

function Waiting({ turn }: { turn: Turn }) {
  const wait = turn.wait.value;
  const left = useSecondsUntil(wait?.until ?? 0);
  if (!wait) return null;
  return (
    <div class="note waiting">
      <span>
        {wait.why} Your question is kept and will be sent again in{" "}
        <b class="seconds">{spanOf(left)}</b>
        .
      </span>
      <span class="actions">
        <button type="button" class="plain" onClick={sendNow}>
          Send now
        </button>
        <button type="button" class="plain" onClick={() => takeBack(turn)}>
          Take back
        </button>
      </span>
    </div>
  );
}

function useSecondsUntil(until: number): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 250);
    return () => clearInterval(timer);
  }, []);
  return (until - now) / 1000;
}

function Figures({ stats }: { stats: Stats }) {
  const parts = [
    stats.firstToken !== undefined && `${seconds(stats.firstToken)} to the first token`,
    stats.rate !== undefined && `${Math.round(stats.rate).toLocaleString("en")} tokens/s`,
    stats.tokens !== undefined && `${stats.tokens} ${stats.tokens === 1 ? "token" : "tokens"}`,
    stats.dropped !== undefined && `${stats.dropped} earlier ${stats.dropped === 1 ? "turn" : "turns"} left out`,
  ].filter(Boolean);
  if (!parts.length) return null;
  return (
    <p class="figures">
      {parts.map((part, index) => [<span>{index < parts.length - 1 ? `${part} ·` : part}</span>, " "])}
    </p>
  );
}

function seconds(value: number): string {
  return value < 1 ? `${Math.max(1, Math.round(value * 1000))} ms` : `${value.toFixed(1)} s`;
}
