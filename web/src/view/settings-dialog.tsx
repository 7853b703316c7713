// System prompt, sampling, the key.

import { useState } from "preact/hooks";
import { chatId } from "../state/chat";
import { askForKey, forgetKey, hasKey } from "../lib/key";
import { DEFAULT_PROMPT, type Field, FIELDS, ownPrompt, sampling, systemPrompt } from "../state/settings";
import { say } from "../lib/notice";
import { settingsOpen } from "../state/ui";
import { Dialog } from "./parts";

export function SettingsDialog() {
  const [prompt, setPrompt] = useState(systemPrompt.value);
  const [values, setValues] = useState<Record<string, number>>(sampling.value);
  const close = () => (settingsOpen.value = false);
  const save = () => {
    systemPrompt.value = prompt;
    if (chatId.value === null) ownPrompt.value = prompt;
    sampling.value = values;
    close();
    say("Settings hold from the next question on");
  };
  const set = (name: string, text: string) => {
    const { [name]: _, ...others } = values;
    setValues(text === "" ? others : { ...others, [name]: Number(text) });
  };
  return (
    <Dialog title="Settings" onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save();
        }}
      >
        <label class="field">
          <span>System prompt {chatId.value === null ? "of new chats" : "of this chat"}</span>
          <textarea rows={3} dir="auto" value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
        </label>
        <fieldset class="sampling">
          <legend>Sampling</legend>
          <p class="hint">An empty field leaves it to the model.</p>
          <div class="grid">
            {FIELDS.map((field) => (
              <Sampling key={field.name} field={field} value={values[field.name]} onInput={(text) => set(field.name, text)} />
            ))}
          </div>
        </fieldset>
        <KeyRow onLeave={close} />
        <div class="actions">
          <button
            type="button"
            class="plain start"
            onClick={() => {
              setPrompt(DEFAULT_PROMPT);
              setValues({});
            }}
          >
            Defaults
          </button>
          <button type="button" class="plain" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="filled">
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface SamplingProps {
  field: Field;
  value: number | undefined;
  onInput: (text: string) => void;
}

function Sampling({ field, value, onInput }: SamplingProps) {
  return (
    <label class="field">
      <span>{field.label}</span>
      <input
        type="number"
        min={field.min}
        max={field.max}
        step={field.step}
        value={value ?? ""}
        aria-describedby={`hint-${field.name}`}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      <small id={`hint-${field.name}`}>{field.hint}</small>
    </label>
  );
}

function KeyRow({ onLeave }: { onLeave: () => void }) {
  return (
    <div class="key-row">
      <span>{hasKey.value ? "This browser holds an API key." : "No API key is held."}</span>
      {hasKey.value ? (
        <button
          type="button"
          class="plain"
          onClick={() => {
            forgetKey();
            say("The key is forgotten");
          }}
        >
          Forget the key
        </button>
      ) : (
        <button
          type="button"
          class="plain"
          onClick={() => {
            onLeave();
            void askForKey("");
          }}
        >
          Enter a key
        </button>
      )}
    </div>
  );
}
