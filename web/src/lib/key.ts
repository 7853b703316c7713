// The API key: kept for this tab, or by choice on this device, and forgotten on request.

import { computed, signal } from "@preact/signals";
import { local, read, session, write } from "./storage";

// What else is in it a header cannot carry, or no server gives.
const USABLE = /^[\x21-\x7e]+$/;
// A mail or a chat program puts them around what is copied out of it.
const WRAPPING = /^[\s\p{Pi}\p{Pf}\p{Cf}"'`„‚]+|[\s\p{Pi}\p{Pf}\p{Cf}"'`„‚]+$/gu;

export function cleanKey(value: string): string {
  return value.replace(WRAPPING, "");
}

const stored = read("key", "", session()) || read("key", "", local());
export const key = signal(USABLE.test(stored) ? stored : "");
export const hasKey = computed(() => key.value !== "");

/** What the key dialog is open for: null is closed, a text is why the last key was refused. */
export const keyWanted = signal<string | null>(null);
let waiting: ((given: boolean) => void)[] = [];

/** Resolves when the user gave a key (true) or would rather not (false). */
export function askForKey(refusal: string): Promise<boolean> {
  keyWanted.value = refusal;
  return new Promise((resolve) => waiting.push(resolve));
}

export function giveKey(value: string, remember: boolean): void {
  const clean = cleanKey(value);
  if (!USABLE.test(clean)) {
    keyWanted.value = "This is not a valid key: a key has no spaces and only letters, digits and signs of plain ASCII.";
    return;
  }
  write("key", clean, session());
  write("key", remember ? clean : "", local());
  key.value = clean;
  settle(true);
}

export function forgetKey(): void {
  write("key", "", session());
  write("key", "", local());
  key.value = "";
}

export function dismissKey(): void {
  settle(false);
}

function settle(given: boolean): void {
  keyWanted.value = null;
  const asked = waiting;
  waiting = [];
  for (const resolve of asked) resolve(given);
}
