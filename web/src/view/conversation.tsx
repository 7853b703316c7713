// The turns of the chat that is open, or a greeting; follows the end while an answer arrives.

import { useSignalEffect } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../state/ask";
import { chatId, loadState, open, turns } from "../state/chat";
import { Answer } from "./answer";
import { Brand } from "./icons";
import { IconButton } from "./parts";
import { Question } from "./question";

const NEAR = 80; // pixels from the end that still count as reading along

export function Conversation() {
  const scroller = useRef<HTMLElement>(null);
  const following = useRef(true);
  const top = useRef(0);
  const [away, setAway] = useState(false);
  const toEnd = () => {
    const box = scroller.current;
    if (!box) return;
    box.scrollTop = box.scrollHeight;
    top.current = box.scrollTop;
  };
  const follow = () => {
    // The reader may have scrolled away since this was asked for.
    if (following.current) toEnd();
  };
  useSignalEffect(() => {
    // Every change of the last answer counts.
    const last = turns.value.at(-1);
    void [last?.answer.value, last?.status.value, last?.note.value];
    requestAnimationFrame(follow);
  });
  useEffect(() => {
    following.current = true;
    requestAnimationFrame(follow);
  }, [chatId.value, turns.value.length]);
  useEffect(() => {
    // Colours and formulas arrive after their text and make it taller.
    const box = scroller.current?.firstElementChild;
    if (!box) return;
    const observer = new ResizeObserver(follow);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const box = scroller.current!;
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    // More text may have come since the page itself went to the end: only who goes up wants to stay behind.
    const up = box.scrollTop < top.current - 1 && left > 1;
    top.current = box.scrollTop;
    if (up) following.current = false;
    else if (left < NEAR) following.current = true;
    setAway(!following.current);
  };
  return (
    <main ref={scroller} onScroll={onScroll} tabIndex={-1} aria-busy={loadState.value === "loading"}>
      <div class="turns">
        <Content />
      </div>
      {away && (
        <div class="to-end">
          <IconButton
            icon="down"
            label="To the end"
            class="round"
            onClick={() => {
              following.current = true;
              toEnd();
            }}
          />
        </div>
      )}
    </main>
  );
}

function Content() {
  const id = chatId.value;
  if (loadState.value === "loading") return <p class="hint">Loading…</p>;
  if (loadState.value === "missing") {
    return <p class="hint">There is no such chat (any more). A question asked here begins a new one.</p>;
  }
  if (loadState.value === "failed") {
    return (
      <p class="hint">
        This chat cannot be loaded right now.{" "}
        <button type="button" class="link" onClick={() => id && void open(id)}>
          Try again
        </button>
      </p>
    );
  }
  if (!turns.value.length) return <Greeting />;
  return (
    <>
      {turns.value.map((turn, index) => (
        <article key={turn.id} class="turn" aria-label={`Question ${index + 1} and its answer`}>
          <Question turn={turn} />
          <Answer turn={turn} last={index === turns.value.length - 1} />
        </article>
      ))}
    </>
  );
}

const EXAMPLES = ["Capital of India?", "What is 17 plus 25?", "Capital of Japan?", "Hello, who are you?"];

function Greeting() {
  return (
    <div class="greeting">
      <Brand />
      <p class="greeting-line">What would you like to know?</p>
      <ul>
        {EXAMPLES.map((example) => (
          <li key={example}>
            <button type="button" class="plain" onClick={() => void ask(example)}>
              {example}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
