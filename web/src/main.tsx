// The page's start.

import { untracked } from "@preact/signals";
import { render } from "preact";
import { addressOf, busy, chatId, loadState, open, refresh, route } from "./state/chat";
import { chats, loadChats } from "./state/history";
import { key } from "./lib/key";
import { loadModels } from "./state/settings";
import "./style/index.css";
import { App } from "./view/app";

render(<App />, document.getElementById("app")!);
window.addEventListener("hashchange", route);
window.addEventListener("popstate", route);
route();

void loadChats();
void loadModels().catch(() => undefined);
window.addEventListener("online", () => {
  void loadChats();
  if (loadState.value === "failed" && chatId.value !== null) void open(chatId.value);
});

// The same chat may have gone on in another tab, or on another device.
const look = () => {
  if (document.visibilityState === "hidden" || chatId.value === null) return;
  if (loadState.value === "ready" && !busy.value) void refresh(chatId.value).catch(() => undefined);
};
document.addEventListener("visibilitychange", look);
window.addEventListener("focus", look);

// Another key may be another person: what is on the screen is not theirs.
let before = key.value;
key.subscribe((now) => {
  if (now === before) return;
  const forgotten = now === "";
  before = now;
  untracked(() => {
    if (forgotten) {
      chats.value = [];
      location.hash = addressOf(null);
      return;
    }
    void loadChats();
    void loadModels().catch(() => undefined);
    if (loadState.value === "failed" && chatId.value !== null) void open(chatId.value);
  });
});
