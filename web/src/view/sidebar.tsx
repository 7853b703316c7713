// The chats: search, the list by day, and the theme.

import { useEffect, useRef, useState } from "preact/hooks";
import { addressOf, chatId } from "../state/chat";
import { chats, listState, loadChats, loadMore, more, search, searching } from "../state/history";
import type { ChatSummary } from "../lib/types";
import { say } from "../lib/notice";
import { narrow, sidebarOpen, theme, type Theme } from "../state/ui";
import { newChat } from "./app";
import { ChatEntry } from "./chat-entry";
import { Brand, Icon, type IconName } from "./icons";
import { IconButton } from "./parts";

export function focusSearch(): void {
  document.querySelector<HTMLInputElement>("#search")?.focus();
}

export function Sidebar() {
  const open = sidebarOpen.value;
  const drawer = narrow.value;
  const root = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (drawer && open) root.current?.querySelector<HTMLElement>(".sidebar-head button")?.focus();
  }, [drawer, open]);
  return (
    <div
      ref={root}
      id="sidebar"
      class="sidebar"
      role={drawer ? "dialog" : "navigation"}
      aria-modal={drawer ? true : undefined}
      aria-label="Chats"
      inert={!open}
      hidden={!open && !drawer}
    >
      <div class="sidebar-head">
        <a class="brand" href={addressOf(null)} onClick={newChat}>
          <Brand /> qna
        </a>
        {drawer && <IconButton icon="close" label="Close" onClick={() => (sidebarOpen.value = false)} />}
      </div>
      <button type="button" class="new-chat" onClick={newChat}>
        <Icon name="plus" /> New chat
      </button>
      <Search />
      <ChatList />
      <ThemeSwitch />
    </div>
  );
}

function Search() {
  const timer = useRef(0);
  const find = () => void loadChats().then((done) => done || say("The chats cannot be searched right now"));
  return (
    <div class="search" role="search">
      <Icon name="search" />
      <input
        id="search"
        type="search"
        placeholder="Search chats"
        aria-label="Search chats"
        maxLength={200}
        value={search.value}
        onInput={(event) => {
          search.value = event.currentTarget.value;
          clearTimeout(timer.current);
          timer.current = window.setTimeout(find, 200);
        }}
      />
    </div>
  );
}

function ChatList() {
  const [loading, setLoading] = useState(false);
  const groups = byDay(chats.value);
  const next = () => {
    setLoading(true);
    loadMore()
      .catch(() => say("The older chats cannot be loaded right now"))
      .finally(() => setLoading(false));
  };
  return (
    <div class="chat-list" aria-busy={listState.value === "loading"}>
      {groups.map(([day, members]) => (
        <section key={day}>
          <h2>{day}</h2>
          <ul>
            {members.map((chat) => (
              <ChatEntry key={chat.chat_id} chat={chat} current={chat.chat_id === chatId.value} />
            ))}
          </ul>
        </section>
      ))}
      {more.value && (
        <button type="button" class="quiet wide" disabled={loading} onClick={next}>
          Older chats
        </button>
      )}
      {listState.value === "failed" && (
        <p class="hint">
          The chats cannot be loaded.{" "}
          <button type="button" class="link" onClick={() => void loadChats()}>
            Try again
          </button>
        </p>
      )}
      {listState.value === "ready" && !chats.value.length && (
        <p class="hint">{emptyList()}</p>
      )}
    </div>
  );
}

function emptyList(): string {
  if (searching.value) return "Searching…";
  return search.value ? "No chat holds these words." : "Your chats will be listed here.";
}

function byDay(all: ChatSummary[]): [string, ChatSummary[]][] {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const day = 86_400_000;
  const groups = new Map<string, ChatSummary[]>();
  for (const chat of all) {
    const age = midnight - Date.parse(chat.updated_at);
    const name = age <= 0 ? "Today" : age <= day ? "Yesterday" : age <= 7 * day ? "Last seven days" : "Older";
    groups.set(name, [...(groups.get(name) ?? []), chat]);
  }
  return [...groups];
}

const THEMES: [Theme, IconName, string][] = [
  ["system", "screen", "As the system"],
  ["light", "sun", "Light"],
  ["dark", "moon", "Dark"],
];

function ThemeSwitch() {
  return (
    <fieldset class="themes">
      <legend class="offscreen">Theme</legend>
      {THEMES.map(([name, icon, label]) => (
        <label key={name} title={label}>
          <input
            type="radio"
            name="theme"
            value={name}
            aria-label={label}
            checked={theme.value === name}
            onChange={() => (theme.value = name)}
          />
          <Icon name={icon} />
        </label>
      ))}
    </fieldset>
  );
}
