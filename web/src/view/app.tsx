// The page's frame, its shortcuts and what lies over it.

import { useEffect } from "preact/hooks";
import { stop } from "../state/ask";
import { addressOf, turns } from "../state/chat";
import { keyWanted } from "../lib/key";
import { announcement, toast } from "../lib/notice";
import { narrow, online, settingsOpen, sidebarOpen } from "../state/ui";
import { Composer, focusComposer } from "./composer";
import { Conversation } from "./conversation";
import { Header } from "./header";
import { KeyDialog } from "./key-dialog";
import { SettingsDialog } from "./settings-dialog";
import { focusSearch, Sidebar } from "./sidebar";

export function newChat(): void {
  location.hash = addressOf(null);
  if (narrow.value) sidebarOpen.value = false;
  requestAnimationFrame(focusComposer);
}

function shortcut(event: KeyboardEvent): void {
  const command = event.ctrlKey || event.metaKey;
  if (document.querySelector("dialog[open]")) return;
  if (command && event.key.toLowerCase() === "k") {
    sidebarOpen.value = true;
    requestAnimationFrame(focusSearch);
  } else if (command && event.shiftKey && event.key.toLowerCase() === "o") {
    newChat();
  } else if (event.key === "Escape" && narrow.value && sidebarOpen.value) {
    sidebarOpen.value = false;
    requestAnimationFrame(() => document.querySelector<HTMLElement>("#menu-button")?.focus());
  } else if (event.key === "Escape" && !event.defaultPrevented) {
    stop();
    return;
  } else {
    return;
  }
  event.preventDefault();
}

export function App() {
  useEffect(() => {
    document.addEventListener("keydown", shortcut);
    return () => document.removeEventListener("keydown", shortcut);
  }, []);
  const drawer = narrow.value && sidebarOpen.value;
  return (
    <div class={`app ${sidebarOpen.value ? "with-sidebar" : ""}`}>
      <button type="button" class="skip" onClick={focusComposer}>
        Skip to the question
      </button>
      <Sidebar />
      {drawer && <div class="scrim" onClick={() => (sidebarOpen.value = false)} />}
      <div class={`column ${turns.value.length ? "" : "empty"}`} inert={drawer}>
        <Header />
        {!online.value && (
          <p class="banner" role="status">
            You are offline. What you type and what was said is kept.
          </p>
        )}
        <Conversation />
        <Composer />
      </div>
      {settingsOpen.value && <SettingsDialog />}
      {keyWanted.value !== null && <KeyDialog />}
      <div class="toast-place">{toast.value && <p class="toast">{toast.value}</p>}</div>
      <p class="offscreen" role="status" aria-live="polite">
        {announcement.value}
      </p>
      <p class="offscreen" role="status" aria-live="polite">
        {toast.value}
      </p>
    </div>
  );
}
