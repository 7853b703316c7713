// What the user asked, and asking it differently.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../lib/api";
import { copyText } from "../lib/browser";
import { edit } from "../state/ask";
import { busy, type Turn } from "../state/chat";
import { say } from "../lib/notice";
import { grow } from "./composer";
import { IconButton } from "./parts";

export function Question({ turn }: { turn: Turn }) {
  const [editing, setEditing] = useState(false);
  const copy = () => void copyText(turn.question).then((done) => say(done ? "Question copied" : "The browser does not let this page copy"));
  return (
    <div class="question" role="group" aria-label="Question">
      <h2 class="offscreen">You asked</h2>
      {editing ? (
        <Editor turn={turn} onDone={() => setEditing(false)} />
      ) : (
        <>
          <p class="bubble" dir="auto">
            {turn.question}
          </p>
          <div class="tools">
            <IconButton icon="copy" label="Copy question" onClick={copy} />
            {turn.position.value !== null && !busy.value && (
              <IconButton icon="edit" label="Edit question" onClick={() => setEditing(true)} />
            )}
          </div>
        </>
      )}
    </div>
  );
}

function Editor({ turn, onDone }: { turn: Turn; onDone: () => void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(turn.question);
  const [sending, setSending] = useState(false);
  // Before the browser paints: who types at once, or selects all, must not have his caret moved later.
  useLayoutEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  useEffect(() => grow(area.current), [text]);
  const send = async () => {
    if (!text.trim() || sending) return;
    setSending(true);
    try {
      await edit(turn, text);
    } catch (problem) {
      say(problem instanceof ApiError ? `Not sent: ${problem.message}` : "Not sent: no connection. Your text is kept.");
      setSending(false);
    }
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <textarea
        ref={area}
        aria-label="Your question"
        dir="auto"
        rows={1}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onDone();
          else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void send();
          else return;
          event.preventDefault();
        }}
      />
      <p class="hint">Asked anew, this becomes a chat of its own; this one stays as it is.</p>
      <div class="actions">
        <button type="button" class="plain" onClick={onDone}>
          Cancel
        </button>
        <button type="submit" class="filled" disabled={!text.trim() || sending}>
          Ask
        </button>
      </div>
    </form>
  );
}
