// What the page says to its reader: aloud, or in passing.

import { signal } from "@preact/signals";

/** Read aloud by screen readers; not seen. */
export const announcement = signal("");
export function announce(text: string): void {
  // The same text twice in a row is told again only when the region was empty in between.
  announcement.value = "";
  requestAnimationFrame(() => (announcement.value = text));
}

/** A short message that goes away by itself. */
export const toast = signal("");
let clearing = 0;
export function say(text: string): void {
  toast.value = text;
  clearTimeout(clearing);
  clearing = window.setTimeout(() => (toast.value = ""), 6000);
}
