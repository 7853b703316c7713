// What is open, and what the window says about itself.

import { effect, signal } from "@preact/signals";
import { kept } from "../lib/storage";

export type Theme = "system" | "light" | "dark";
export const theme = kept<Theme>("theme", "system");
effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});

const NARROW = window.matchMedia("(max-width: 760px)");
export const narrow = signal(NARROW.matches);
export const sidebarOpen = signal(!NARROW.matches);
NARROW.addEventListener("change", () => {
  narrow.value = NARROW.matches;
  sidebarOpen.value = !NARROW.matches;
});

export const online = signal(navigator.onLine);
window.addEventListener("online", () => (online.value = true));
window.addEventListener("offline", () => (online.value = false));

export const settingsOpen = signal(false);
