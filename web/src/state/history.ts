// The list of chats: pages, search, rename, delete, export.

import { signal } from "@preact/signals";
import { call, json } from "../lib/api";
import { saveFile } from "../lib/browser";
import type { ChatPage, ChatSummary } from "../lib/types";

const PAGE = 30;

export const chats = signal<ChatSummary[]>([]);
export const more = signal<string | null>(null);
export const search = signal("");
export const listState = signal<"loading" | "ready" | "failed">("loading");
export const searching = signal(false);
let latest = 0;

export function pathOf(chatId: string): string {
  return `chats/${encodeURIComponent(chatId)}`;
}

/** Gives false when the list on the screen is not the one that was asked for. */
export async function loadChats(): Promise<boolean> {
  const mine = ++latest;
  searching.value = search.value.trim() !== "";
  try {
    const page = await fetchSome(null, mine);
    // A slower answer to an earlier search must not replace a newer one.
    if (mine !== latest) return true;
    chats.value = page.chats;
    more.value = page.next_cursor;
    listState.value = "ready";
    return true;
  } catch {
    // A list that is a little old is better than none.
    if (mine === latest && !chats.value.length) listState.value = "failed";
    return mine !== latest;
  } finally {
    if (mine === latest) searching.value = false;
  }
}

export async function loadMore(): Promise<void> {
  const mine = latest;
  const page = await fetchSome(more.value, mine);
  if (mine !== latest) return;
  const known = new Set(chats.value.map((chat) => chat.chat_id));
  chats.value = [...chats.value, ...page.chats.filter((chat) => !known.has(chat.chat_id))];
  more.value = page.next_cursor;
}

/** A search gives what it has found in a moment, which may be nothing yet. */
async function fetchSome(cursor: string | null, mine: number): Promise<ChatPage> {
  let page = await fetchPage(cursor);
  while (!page.chats.length && page.next_cursor && mine === latest) page = await fetchPage(page.next_cursor);
  return page;
}

function fetchPage(cursor: string | null): Promise<ChatPage> {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (search.value.trim()) query.set("search", search.value.trim());
  if (cursor) query.set("cursor", cursor);
  return json<ChatPage>(`chats?${query}`);
}

export function titleOf(chat: ChatSummary | undefined): string {
  return chat?.title || (chat ? "Untitled chat" : "New chat");
}

export async function rename(chat: ChatSummary, title: string): Promise<void> {
  const renamed = await json<ChatSummary>(pathOf(chat.chat_id), { method: "PATCH", body: { title } });
  chats.value = chats.value.map((one) => (one.chat_id === chat.chat_id ? { ...one, ...renamed } : one));
}

export async function remove(chatId: string): Promise<void> {
  await call(pathOf(chatId), { method: "DELETE" });
  chats.value = chats.value.filter((chat) => chat.chat_id !== chatId);
}

export async function exportChat(chat: ChatSummary, format: "markdown" | "json"): Promise<void> {
  const response = await call(`${pathOf(chat.chat_id)}/export?format=${format}`);
  const stem = titleOf(chat).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "chat";
  saveFile(`${stem}.${format === "json" ? "json" : "md"}`, await response.blob());
}
