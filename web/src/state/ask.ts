// Asking: a question goes out, its answer comes in pieces, and whatever goes wrong on the way ends in words and a
// next step. A question is sent again by itself when the server is busy or cannot be reached, and never twice when
// the server has it already.

import { ApiError, call, json, Lost } from "../lib/api";
import { newId, sleep } from "../lib/browser";
import {
  addressOf, adopt, arriving, busy, chatId, draft, fetchChat, KEPT, refresh, remember, Turn, turns, typed,
} from "./chat";
import { chats, loadChats, pathOf, remove } from "./history";
import { choices, loadModels, models, systemPrompt } from "./settings";
import { readAnswer } from "./stream";
import { announce, say } from "../lib/notice";
import { spanOf } from "../lib/time";

const MOST_TRIES = 6;
const LONGEST_WAIT = 900; // seconds; nobody watches a countdown for longer
const MOVED_ON = "chat_moved_on";
const BUSY_CHAT = new Set(["chat_busy", "idempotency_key_in_use"]);

interface Asking {
  chatId: string;
  turn: Turn;
  /** Whether the server has the question, so that it is answered again instead of asked; null: ask the server. */
  held: boolean | null;
  /** The turn that is to be answered again, as the server counts. */
  position: number | null;
  /** There is an answer already: it is valid until the new one is whole. */
  replacing: boolean;
  problem: unknown;
  /** Its chat is being deleted: there is nothing to learn of it any more. */
  erased: boolean;
  /** The same for every try: the server answers one request with one key once, however often it arrives. */
  request: { path: string; body: unknown } | null;
  requestKey: string;
  stop: AbortController;
  /** Ends a countdown: true sends now, false gives up. */
  wake: (send: boolean) => void;
}

const running = new Map<string, Asking>();

function current(): Asking | undefined {
  return chatId.value === null ? undefined : running.get(chatId.value);
}

export async function ask(question: string): Promise<void> {
  if (busy.value || !question.trim()) return;
  typed("");
  const id = chatId.value ?? newId();
  adopt(id);
  const turn = new Turn(question);
  turns.value = [...turns.value, turn];
  remember(id, question);
  const { erased } = await deliver(id, turn, null);
  if (!erased) void learn(id);
}

/** Another answer to the last question, whatever became of the one before. */
export async function retry(turn: Turn): Promise<void> {
  const id = chatId.value;
  if (busy.value || turns.value.at(-1) !== turn || id === null) return;
  const wasComplete = turn.status.value === "complete";
  const kept = { answer: turn.answer.value, note: turn.note.value, stats: turn.stats.value };
  const { problem, erased } = await deliver(id, turn, wasComplete);
  if (erased) return;
  if (wasComplete && !isComplete(turn)) {
    // Until a new answer is whole, the old one is the valid one.
    const code = problem instanceof ApiError ? problem.code : "";
    if (code === MOVED_ON) say("This chat has gone on elsewhere. What came since is shown now.");
    // A chat that is gone is told of when it is looked for.
    else if (code !== "chat_not_found") say(`The earlier answer stays. ${turn.note.value}`);
    turn.answer.value = kept.answer;
    turn.stats.value = kept.stats;
    turn.note.value = kept.note;
    turn.status.value = "complete";
  }
  void learn(id);
}

/** Ask the question differently: a new chat with everything before it, the old one stays as it is. */
export async function edit(turn: Turn, question: string): Promise<void> {
  const from = chatId.value;
  if (busy.value || from === null || turn.position.value === null) return;
  const made = await json<{ chat_id: string }>(`${pathOf(from)}/branch`, {
    method: "POST",
    body: { before: turn.position.value },
  });
  const before = turns.value.slice(0, turns.value.indexOf(turn));
  history.pushState(null, "", addressOf(made.chat_id));
  adopt(made.chat_id);
  turns.value = before.filter((one) => one.status.value === "complete");
  await ask(question);
}

export function stop(): void {
  current()?.stop.abort();
}

const LONGEST_END = 5; // seconds until the server has noticed that nobody waits for an answer any more

/** Delete a chat, also one that is being answered for this tab. */
export async function erase(id: string): Promise<void> {
  const asking = running.get(id);
  if (asking) {
    asking.erased = true;
    asking.stop.abort();
  }
  for (let waited = 0; ; waited += 0.25) {
    try {
      await remove(id);
      return remember(id, null);
    } catch (problem) {
      const ending = asking && problem instanceof ApiError && problem.code === "chat_busy";
      if (!ending || waited >= LONGEST_END) throw problem;
      await sleep(250);
    }
  }
}

export function sendNow(): void {
  current()?.wake(true);
}

/** Give a question that waits back to the composer. */
export function takeBack(turn: Turn): void {
  current()?.wake(false);
  current()?.stop.abort();
  if (!turn.answer.value) turns.value = turns.value.filter((one) => one !== turn);
  if (!draft.value) typed(turn.question);
  if (chatId.value) remember(chatId.value, null);
}

function isComplete(turn: Turn): boolean {
  return turn.status.value === "complete";
}

/** Whether there is an answer to replace is null for a question that is asked first. */
async function deliver(id: string, turn: Turn, replacing: boolean | null): Promise<Asking> {
  const position = turn.position.value;
  const asking: Asking = {
    chatId: id,
    turn,
    held: replacing === null ? false : replacing && position !== null ? true : null,
    position,
    replacing: replacing === true,
    problem: null,
    erased: false,
    request: null,
    requestKey: newId(),
    stop: new AbortController(),
    wake: () => undefined,
  };
  // Another attempt is stored at another one.
  turn.position.value = null;
  running.set(id, asking);
  arriving.set(id, turns.value);
  try {
    await tryUntilAnswered(asking);
  } finally {
    running.delete(id);
    arriving.delete(id);
    turn.wait.value = null;
    if (!isComplete(turn)) turn.position.value ??= position;
  }
  return asking;
}

async function learn(id: string): Promise<void> {
  try {
    await Promise.all([loadChats(), refresh(id), models.value.length ? undefined : loadModels()]);
  } catch {
    // What is on the screen is still right; the next answer brings another chance.
  }
}

async function tryUntilAnswered(asking: Asking): Promise<void> {
  const { turn } = asking;
  for (let tries = 1; ; tries++) {
    turn.status.value = "asking";
    turn.note.value = "";
    try {
      await once(asking);
      return;
    } catch (problem) {
      if (asking.stop.signal.aborted) return stopped(asking);
      asking.problem = problem;
      const again = tries < MOST_TRIES ? patience(problem, tries) : null;
      if (hasBegun(turn) || !again) return failed(asking, problem);
      if (!(await countdown(asking, again.seconds, again.why))) return stopped(asking);
    }
  }
}

async function once(asking: Asking): Promise<void> {
  const { chatId, turn, stop } = asking;
  const started = performance.now();
  announce("Asking");
  asking.held ??= await isHeldByServer(asking);
  if (asking.replacing && !asking.held) throw new ApiError(409, MOVED_ON, "The chat has gone on elsewhere");
  const meant = asking.position === null ? {} : { position: asking.position };
  const question = { chat_id: chatId, system_prompt: systemPrompt.value, user_prompt: turn.question };
  asking.request ??= asking.held
    ? { path: `${pathOf(chatId)}/regenerate`, body: { ...choices(), ...meant } }
    : { path: "chat", body: { ...question, ...choices() } };
  const { path, body } = asking.request;
  const headers = { "Idempotency-Key": asking.requestKey };
  const response = await call(path, { method: "POST", body, headers, signal: stop.signal });
  remember(chatId, null);
  if (chats.value.every((chat) => chat.chat_id !== chatId)) void loadChats();
  await readAnswer(turn, response, started);
  announce("The answer is complete");
}

async function isHeldByServer(asking: Asking): Promise<boolean> {
  const { chatId, turn } = asking;
  // Another chat may be on the screen by now.
  const all = arriving.get(chatId) ?? [];
  const before = all[all.indexOf(turn) - 1]?.position.value ?? -1;
  try {
    const last = (await fetchChat(chatId)).items.at(-1);
    if (last === undefined || last.position <= before || last.user_prompt !== turn.question) return false;
    asking.position = last.position;
    return true;
  } catch (problem) {
    if (problem instanceof ApiError && problem.status === 404) return false;
    throw problem;
  }
}

/** How long to wait before the next try; null when trying again is of no use. */
function patience(problem: unknown, tries: number): { seconds: number; why: string } | null {
  if (problem instanceof Lost) return { seconds: Math.min(30, 2 ** tries), why: "No connection to the server." };
  if (!(problem instanceof ApiError)) return null;
  if (BUSY_CHAT.has(problem.code)) return { seconds: tries, why: "This chat is still finishing its last answer." };
  if (!problem.isBusy || (problem.retryAfter ?? 0) > LONGEST_WAIT) return null;
  return { seconds: problem.retryAfter ?? 2 ** tries, why: reasonOf(problem) };
}

function reasonOf(problem: ApiError): string {
  if (problem.code === "overloaded") return "The server is busy right now.";
  if (problem.status === 503) return "The model is not ready right now.";
  return `${problem.message.replace(/\.$/, "")}.`;
}

async function countdown(asking: Asking, seconds: number, why: string): Promise<boolean> {
  const { turn } = asking;
  turn.status.value = "waiting";
  turn.wait.value = { until: Date.now() + seconds * 1000, why };
  announce(`${why} Your question is kept and will be sent again in ${spanOf(seconds)}.`);
  const woken = new Promise<boolean>((resolve) => (asking.wake = resolve));
  const online = () => asking.wake(true);
  const aborted = () => asking.wake(false);
  window.addEventListener("online", online);
  asking.stop.signal.addEventListener("abort", aborted);
  try {
    return await Promise.race([woken, sleep(seconds * 1000).then(() => true)]);
  } finally {
    window.removeEventListener("online", online);
    asking.stop.signal.removeEventListener("abort", aborted);
    turn.wait.value = null;
  }
}

function hasBegun(turn: Turn): boolean {
  return turn.status.value === "streaming";
}

function stopped({ turn, replacing }: Asking): void {
  const arrived = hasBegun(turn) && turn.answer.value !== "";
  turn.status.value = "interrupted";
  turn.note.value = arrived ? `You stopped this answer. ${KEPT}` : "You stopped this question.";
  if (replacing) turn.note.value = "You stopped the new one.";
  announce("Stopped");
}

function failed({ turn, replacing }: Asking, problem: unknown): void {
  // Of an attempt that was to replace an answer nothing is kept.
  const ending = replacing ? "" : ` ${KEPT}`;
  const arrived = hasBegun(turn) && turn.answer.value !== "";
  const said = problem instanceof ApiError ? problem.message.replace(/\.$/, "") : "";
  turn.status.value = arrived ? "interrupted" : "failed";
  if (arrived) {
    turn.note.value = said
      ? `The answer broke off before its end (${said}).${ending}`
      : `The connection was lost while the answer arrived.${ending}`;
  } else {
    const later = problem instanceof ApiError && problem.retryAfter ? ` Try again in ${spanOf(problem.retryAfter)}.` : "";
    turn.note.value = said ? `${said}.${later}` : "The server cannot be reached. Your question is kept.";
  }
  announce(turn.note.value);
}
