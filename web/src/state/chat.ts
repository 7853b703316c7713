// The chat that is open: its turns, how it is loaded, and where in the address it stands (#/chat/<id>).

import { computed, signal } from "@preact/signals";
import { ApiError, json } from "../lib/api";
import { newId, sleep } from "../lib/browser";
import { say } from "../lib/notice";
import { kept, read, write } from "../lib/storage";
import type { ChatView, ServerStatus, ServerTurn } from "../lib/types";
import { loadChats, pathOf } from "./history";
import { ownPrompt, systemPrompt } from "./settings";

export type Status =
  | "asking" // sent, nothing back yet
  | "streaming"
  | "waiting" // refused or lost, and about to be sent again
  | "pending" // being answered for another tab
  | "complete"
  | "interrupted"
  | "failed";

export interface Stats {
  firstToken?: number; // seconds
  rate?: number; // tokens per second
  tokens?: number;
  dropped?: number; // earlier turns that had no room
}

export class Turn {
  readonly id = newId();
  readonly answer = signal("");
  readonly status = signal<Status>("asking");
  /** What the reader has to know about the answer besides its text. */
  readonly note = signal("");
  readonly wait = signal<{ until: number; why: string } | null>(null);
  readonly stats = signal<Stats>({});
  readonly position = signal<number | null>(null);

  constructor(readonly question: string) {}
}

export const chatId = signal<string | null>(null);
export const turns = signal<Turn[]>([]);
export const view = signal<ChatView | null>(null);
export const loadState = signal<"ready" | "loading" | "missing" | "failed">("ready");
export const busy = computed(() => {
  const last = turns.value.at(-1)?.status.value;
  return last === "asking" || last === "streaming" || last === "waiting" || last === "pending";
});

/** An answer on its way to this tab, which can be stopped; one for another tab cannot. */
export const stoppable = computed(() => busy.value && turns.value.at(-1)?.status.value !== "pending");

export const KEPT = "What had arrived is kept.";

/** Text that was typed and not sent, by chat. */
const drafts = kept<Record<string, string>>("drafts", {});
const NEW = "new";
export const draft = signal("");

export function typed(text: string): void {
  draft.value = text;
  const { [chatId.value ?? NEW]: _, ...others } = drafts.value;
  drafts.value = text ? { ...others, [chatId.value ?? NEW]: text } : others;
}

/** A question that left, until the server has it: a reload in between must not lose it. */
export function remember(id: string, question: string | null): void {
  const unsent = read<Record<string, string>>("unsent", {});
  if (question === null) delete unsent[id];
  else unsent[id] = question;
  write("unsent", Object.keys(unsent).length ? unsent : null);
}

function restoreDraft(id: string | null, loaded: ServerTurn[]): void {
  const unsent = id ? read<Record<string, string>>("unsent", {})[id] : undefined;
  if (id && unsent !== undefined) {
    remember(id, null);
    if (loaded.at(-1)?.user_prompt !== unsent) drafts.value = { ...drafts.value, [id]: unsent };
  }
  draft.value = drafts.value[id ?? NEW] ?? "";
}

export function addressOf(id: string | null): string {
  return id === null ? "#/" : `#/chat/${encodeURIComponent(id)}`;
}

function addressed(): string | null {
  const match = /^#\/chat\/(.+)$/.exec(location.hash);
  try {
    return match ? decodeURIComponent(match[1]!) : null;
  } catch {
    return null;
  }
}

/** Follow the address; called at the start and whenever it changes. */
export function route(): void {
  const id = addressed();
  if (id === null) startNew();
  else if (id !== chatId.value) void open(id);
}

let opening = 0;
/** Chats whose answer is arriving: it goes on while another chat is read, and is found again on return. */
export const arriving = new Map<string, Turn[]>();

function startNew(): void {
  opening++;
  chatId.value = null;
  turns.value = [];
  view.value = null;
  loadState.value = "ready";
  systemPrompt.value = ownPrompt.value;
  restoreDraft(null, []);
}

export async function open(id: string): Promise<void> {
  const mine = ++opening;
  const live = arriving.get(id);
  chatId.value = id;
  turns.value = live ?? [];
  view.value = null;
  loadState.value = live ? "ready" : "loading";
  draft.value = drafts.value[id] ?? "";
  if (live) return;
  try {
    const loaded = await fetchChat(id);
    if (mine !== opening) return;
    show(loaded);
    restoreDraft(id, loaded.items);
    if (turns.value.at(-1)?.status.value === "pending") void follow(id, mine);
  } catch (problem) {
    if (mine !== opening) return;
    const missing = problem instanceof ApiError && problem.status === 404;
    loadState.value = missing ? "missing" : "failed";
    restoreDraft(id, []);
    // A chat whose first question never got through is a new one, not a missing one.
    if (missing && draft.value) loadState.value = "ready";
  }
}

/** Show a new chat's id in the address without loading what is on the screen already. */
export function adopt(id: string): void {
  opening++;
  chatId.value = id;
  loadState.value = "ready";
  history.replaceState(null, "", addressOf(id));
}

export async function fetchChat(id: string): Promise<ChatView> {
  let page = await json<ChatView>(pathOf(id));
  const items = [...page.items];
  while (page.next_cursor) {
    page = await json<ChatView>(`${pathOf(id)}?cursor=${encodeURIComponent(page.next_cursor)}`);
    items.push(...page.items);
  }
  return { ...page, items };
}

function show(loaded: ChatView): void {
  view.value = loaded;
  systemPrompt.value = loaded.system_prompt ?? "";
  turns.value = loaded.items.map(fromServer);
  loadState.value = "ready";
}

function fromServer(item: ServerTurn): Turn {
  const turn = new Turn(item.user_prompt);
  turn.position.value = item.position;
  turn.answer.value = item.response ?? "";
  turn.status.value = item.status === "replaced" ? "complete" : item.status;
  turn.note.value = noteFor(item.status, turn.answer.value, item.finish_reason, item.error_code);
  turn.stats.value = item.usage ? { tokens: item.usage.completion_tokens } : {};
  return turn;
}

export function noteFor(
  status: ServerStatus,
  answer: string,
  reason: string | null | undefined,
  code: string | null,
): string {
  if (status === "interrupted") return `This answer was interrupted${answer ? `. ${KEPT}` : " before anything arrived."}`;
  if (status === "failed") return `This question was not answered${code ? ` (${code.replaceAll("_", " ")})` : ""}.`;
  return reason === "length" ? "The answer ends here because it reached the longest length allowed." : "";
}

/** An answer that is made for someone else (another tab, or this one before a reload): wait for its end. */
async function follow(id: string, mine: number): Promise<void> {
  while (mine === opening) {
    await sleep(1000);
    try {
      await refresh(id);
      if (mine !== opening || turns.value.at(-1)?.status.value !== "pending") return;
    } catch {
      // Away for a moment; the next look may find it.
    }
  }
}

/** Learn from the server what only it knows: positions, the chat's title, and what was asked in other tabs. */
export async function refresh(id: string): Promise<void> {
  let loaded: ChatView;
  const before = stamp();
  try {
    loaded = await fetchChat(id);
  } catch (problem) {
    if (!(problem instanceof ApiError && problem.status === 404)) throw problem;
    if (id === chatId.value) gone();
    return;
  }
  const last = turns.value.at(-1);
  // What ended while this was on its way is not in it; its own end brings another look.
  if (id !== chatId.value || (stamp() !== before && !(last && isLive(last)))) return;
  // An id can be used again after its chat was deleted: nothing of the old one is known to the model.
  const remade = view.value?.chat_id === loaded.chat_id && view.value.created_at !== loaded.created_at;
  if (remade) turns.value = turns.value.filter((turn) => turn.position.value === null || isLive(turn));
  view.value = loaded;
  const wasPending = last?.status.value === "pending";
  turns.value = merged(turns.value, loaded.items);
  if (arriving.has(id)) arriving.set(id, turns.value);
  if (remade) say("This chat was deleted elsewhere. What you asked since began a new one.");
  if (!wasPending && turns.value.at(-1)?.status.value === "pending") void follow(id, opening);
}

function stamp(): string {
  const last = turns.value.at(-1);
  return [last?.id, last?.status.value, last?.position.value].join();
}

const isLive = (turn: Turn) => ["asking", "streaming", "waiting"].includes(turn.status.value);

function gone(): void {
  // A question that the server never took is still here to be sent.
  const left = turns.value.filter(
    (turn) => isLive(turn) || (turn.position.value === null && turn.status.value !== "complete"),
  );
  if (left.length === turns.value.length) return;
  turns.value = left;
  view.value = null;
  if (!turns.value.length) loadState.value = "missing";
  say("This chat was deleted elsewhere");
  void loadChats();
}

/** The server's turns in its order; what is on the screen already stays the same there, figures and all. */
function merged(here: Turn[], there: ServerTurn[]): Turn[] {
  const found = new Map<ServerTurn, Turn>();
  const free = new Set(here);
  const pair = (item: ServerTurn, turn: Turn | undefined) => {
    if (!turn) return;
    found.set(item, turn);
    free.delete(turn);
  };
  const byPosition = new Map(here.map((turn) => [turn.position.value, turn]));
  for (const item of there) {
    const turn = byPosition.get(item.position);
    if (turn?.question === item.user_prompt) pair(item, turn);
  }
  for (const item of [...there].reverse()) {
    // Just asked here, or answered again: it has got another position.
    if (!found.has(item)) pair(item, [...free].reverse().find((turn) => turn.question === item.user_prompt));
  }
  const all = there.flatMap((item) => {
    const turn = found.get(item);
    if (turn) return updated(turn, item);
    // Taken back here, or refused elsewhere: the model is never told of it.
    return item.status === "failed" && !item.response ? [] : fromServer(item);
  });
  for (const turn of free) {
    // The server never took it, so that it is nowhere else.
    if (turn.position.value !== null && !isLive(turn)) continue;
    const before = here.slice(0, here.indexOf(turn)).findLast((one) => all.includes(one));
    if (isLive(turn)) all.push(turn);
    else all.splice(before ? all.indexOf(before) + 1 : 0, 0, turn);
  }
  return all.length === here.length && all.every((turn, index) => turn === here[index]) ? here : all;
}

function updated(turn: Turn, item: ServerTurn): Turn {
  if (isLive(turn)) return turn;
  turn.position.value = item.position;
  // The server may not have noticed yet that this tab has stopped.
  if (item.status === "pending") return turn;
  const told = item.response ?? "";
  if (turn.status.value === item.status && (turn.answer.value === told || (told && item.status === "interrupted"))) {
    turn.answer.value = told;
    return turn;
  }
  const now = fromServer(item);
  for (const name of ["answer", "status", "note", "stats"] as const) {
    (turn[name].value as unknown) = now[name].value;
  }
  return turn;
}
