// Above the conversation: which chat this is, which model answers, and the way to the settings.

import { addressOf, chatId, turns, view } from "../state/chat";
import { chats, titleOf } from "../state/history";
import { chooseModel, model, models } from "../state/settings";
import { settingsOpen, sidebarOpen } from "../state/ui";
import { newChat } from "./app";
import { Icon } from "./icons";
import { IconButton } from "./parts";

export function Header() {
  const listed = chats.value.find((chat) => chat.chat_id === chatId.value) ?? view.value ?? undefined;
  const title = listed ? titleOf(listed) : (turns.value[0]?.question ?? "New chat");
  document.title = turns.value.length ? `${title} · qna` : "qna";
  const origin = view.value?.branched_from;
  return (
    <header>
      <IconButton
        id="menu-button"
        icon="menu"
        label={sidebarOpen.value ? "Hide chats" : "Show chats"}
        aria-expanded={sidebarOpen.value}
        aria-controls="sidebar"
        onClick={() => (sidebarOpen.value = !sidebarOpen.value)}
      />
      <div class="heading">
        <h1 dir="auto">{title}</h1>
        {origin && (
          <a class="origin" href={addressOf(origin.chat_id)}>
            <Icon name="branch" /> Branched from an earlier chat
          </a>
        )}
      </div>
      {models.value.length > 1 && (
        <select
          class="model"
          aria-label="Model"
          value={model.value}
          onChange={(event) => chooseModel(event.currentTarget.value)}
        >
          {models.value.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      )}
      <IconButton icon="plus" label="New chat" class="quiet header-new" onClick={newChat} />
      <IconButton icon="settings" label="Settings" onClick={() => (settingsOpen.value = true)} />
    </header>
  );
}
