// What the browser keeps for us. Storage may be full, closed or wiped at any time: nothing here throws.

import { effect, signal, type Signal } from "@preact/signals";

const PREFIX = "qna.";

export function read<T>(name: string, otherwise: T, store: Storage | null = local()): T {
  try {
    const text = store?.getItem(PREFIX + name);
    return text == null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}

export function write(name: string, value: unknown, store: Storage | null = local()): void {
  try {
    if (value === null || value === "" || value === undefined) store?.removeItem(PREFIX + name);
    else store?.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Full or forbidden: the page works on without memory.
  }
}

/** A signal whose value outlives the page. */
export function kept<T>(name: string, initial: T): Signal<T> {
  const made = signal(read(name, initial));
  effect(() => write(name, made.value));
  return made;
}

export function local(): Storage | null {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

export function session(): Storage | null {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}
