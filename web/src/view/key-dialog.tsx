// Asks for the API key when the server wants one.

import { useState } from "preact/hooks";
import { cleanKey, dismissKey, giveKey, keyWanted } from "../lib/key";
import { Dialog } from "./parts";

export function KeyDialog() {
  const [value, setValue] = useState("");
  const [remember, setRemember] = useState(false);
  const refusal = keyWanted.value;
  return (
    <Dialog title="This server asks for a key" onClose={dismissKey}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          giveKey(value, remember);
        }}
      >
        <p>Whoever runs this server can give you one. What you have typed is kept meanwhile.</p>
        {refusal && (
          <p class="note broken" role="alert">
            <span>{refusal}</span>
          </p>
        )}
        <label class="field">
          <span>API key</span>
          <input
            type="password"
            autofocus
            autocomplete="off"
            spellcheck={false}
            required
            maxLength={500}
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          <span>Remember it on this device (else until this tab closes)</span>
        </label>
        <div class="actions">
          <button type="button" class="plain" onClick={dismissKey}>
            Not now
          </button>
          <button type="submit" class="filled" disabled={!cleanKey(value)}>
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
