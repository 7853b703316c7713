// Where questions are typed.

import { useEffect, useRef } from "preact/hooks";
import { ask, stop } from "../state/ask";
import { busy, chatId, draft, stoppable, typed } from "../state/chat";
import { Icon } from "./icons";

const COARSE = window.matchMedia("(pointer: coarse)");

export function focusComposer(): void {
  document.querySelector<HTMLTextAreaElement>("#question")?.focus();
}

/** As high as the text, up to the limit in the stylesheet. */
export function grow(area: HTMLTextAreaElement | null): void {
  if (!area) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

export function Composer() {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => grow(area.current), [draft.value]);
  useEffect(() => {
    // On a phone the keyboard would cover what there is to read.
    if (!COARSE.matches) area.current?.focus();
  }, [chatId.value]);
  const send = () => {
    if (busy.value) return;
    void ask(draft.value);
    area.current?.focus();
  };
  return (
    <form
      class="composer"
      aria-label="Ask"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div class="composer-box">
        <textarea
          ref={area}
          id="question"
          rows={1}
          dir="auto"
          placeholder="Ask a question"
          aria-label="Your question"
          aria-describedby="composer-hint"
          value={draft.value}
          onInput={(event) => typed(event.currentTarget.value)}
          onKeyDown={(event) => {
            const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing && !COARSE.matches;
            if (!sends) return;
            event.preventDefault();
            send();
          }}
        />
        {stoppable.value ? (
          <button type="button" class="send" aria-label="Stop" title="Stop (Esc)" onClick={stop}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="send" aria-label="Send" title="Send (Enter)" disabled={busy.value || !draft.value.trim()}>
            <Icon name="send" />
          </button>
        )}
      </div>
      <p id="composer-hint" class="hint">
        Answers can be wrong.<span class="wide-only"> Enter sends, Shift+Enter is a new line.</span>
      </p>
    </form>
  );
}
