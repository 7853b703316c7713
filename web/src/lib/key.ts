// The API key: kept for this tab, or by choice on this device, and forgotten on request.

import { computed, signal } from "@preact/signals";
import { local, read, session, write } from "./storage";

export const key = signal(read("key", "", session()) || read("key", "", local()));
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
  const clean = value.trim();
  write("key", clean, session());
  write("key", remember ? clean : "", local());
  key.value = clean;
  settle(clean !== "");
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
