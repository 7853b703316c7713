// One chat of the list, with what can be done to it.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../lib/api";
import type { ChatSummary } from "../lib/types";
import { erase as eraseChat } from "../state/ask";
import { addressOf } from "../state/chat";
import { exportChat, rename, titleOf } from "../state/history";
import { say } from "../lib/notice";
import { narrow, sidebarOpen } from "../state/ui";
import { newChat } from "./app";
import { Dialog, Menu } from "./parts";

type Mode = "shown" | "menu" | "renaming" | "deleting";

export function ChatEntry({ chat, current }: { chat: ChatSummary; current: boolean }) {
  const [mode, setMode] = useState<Mode>("shown");
  const root = useRef<HTMLLIElement>(null);
  const title = titleOf(chat);
  const back = () => {
    setMode("shown");
    requestAnimationFrame(() => root.current?.querySelector<HTMLElement>(".menu-root button")?.focus());
  };
  const attempt = async (action: () => Promise<void>, failure: string) => {
    try {
      await action();
    } catch (problem) {
      say(problem instanceof ApiError ? `${failure}: ${problem.message}` : `${failure}: no connection`);
    }
  };
  const exported = (format: "markdown" | "json") => {
    back();
    void attempt(() => exportChat(chat, format), "Not exported");
  };
  const erase = () => {
    setMode("shown");
    void attempt(async () => {
      await eraseChat(chat.chat_id);
      if (current) newChat();
      say("Chat deleted");
    }, "Not deleted");
  };
  if (mode === "renaming") {
    const finish = (name: string | null) => {
      back();
      if (name && name !== title) void attempt(() => rename(chat, name), "Not renamed");
    };
    return (
      <li ref={root} class="chat-entry">
        <Rename title={title} onDone={finish} />
      </li>
    );
  }
  return (
    <li ref={root} class={`chat-entry ${mode === "menu" ? "open" : ""}`}>
      <a
        href={addressOf(chat.chat_id)}
        aria-current={current ? "page" : undefined}
        dir="auto"
        title={title}
        onClick={() => narrow.value && (sidebarOpen.value = false)}
      >
        {title}
      </a>
      <Menu label={`Options for ${title}`} open={mode === "menu"} onToggle={(open) => setMode(open ? "menu" : "shown")}>
        <button type="button" onClick={() => setMode("renaming")}>
          Rename
        </button>
        <button type="button" onClick={() => exported("markdown")}>
          Export as Markdown
        </button>
        <button type="button" onClick={() => exported("json")}>
          Export as JSON
        </button>
        <button type="button" class="danger" onClick={() => setMode("deleting")}>
          Delete
        </button>
      </Menu>
      {mode === "deleting" && (
        <Dialog title="Delete this chat?" onClose={back}>
          <p class="wrap">“{title}” and all its answers go for good.</p>
          <div class="actions">
            <button type="button" class="plain" onClick={back}>
              Keep it
            </button>
            <button type="button" class="danger-filled" onClick={erase}>
              Delete
            </button>
          </div>
        </Dialog>
      )}
    </li>
  );
}

function Rename({ title, onDone }: { title: string; onDone: (title: string | null) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const done = useRef(false);
  useLayoutEffect(() => input.current?.select(), []);
  const finish = (name: string | null) => {
    // Enter takes the field away, which blurs it: once is enough.
    if (done.current) return;
    done.current = true;
    onDone(name);
  };
  return (
    <input
      ref={input}
      class="rename"
      aria-label="Title of the chat"
      maxLength={200}
      value={title}
      onBlur={(event) => finish(event.currentTarget.value.trim())}
      onKeyDown={(event) => {
        if (event.key === "Enter") finish(event.currentTarget.value.trim());
        else if (event.key === "Escape") finish(null);
        else return;
        event.preventDefault();
        event.stopPropagation();
      }}
    />
  );
}
