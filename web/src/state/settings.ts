// Which model, how it samples, and its system prompt.

import { computed, signal } from "@preact/signals";
import { json } from "../lib/api";
import { kept } from "../lib/storage";

export interface Field {
  name: string;
  label: string;
  hint: string;
  min: number;
  max?: number;
  step: number | "any";
}

export const FIELDS: Field[] = [
  { name: "temperature", label: "Temperature", hint: "0 to 2; lower is steadier", min: 0, max: 2, step: "any" },
  { name: "max_tokens", label: "Longest answer", hint: "in tokens", min: 1, step: 1 },
  { name: "top_p", label: "Top p", hint: "above 0, up to 1", min: 0.01, max: 1, step: "any" },
  { name: "top_k", label: "Top k", hint: "0 is off", min: 0, step: 1 },
  { name: "min_p", label: "Min p", hint: "0 to 1", min: 0, max: 1, step: "any" },
  { name: "seed", label: "Seed", hint: "the same seed, the same answer", min: 0, step: 1 },
  { name: "presence_penalty", label: "Presence penalty", hint: "-2 to 2", min: -2, max: 2, step: "any" },
  { name: "frequency_penalty", label: "Frequency penalty", hint: "-2 to 2", min: -2, max: 2, step: "any" },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "above 0, up to 2", min: 0.01, max: 2, step: "any" },
];

export const DEFAULT_PROMPT = "You are a helpful assistant.";

/** For new chats. */
export const ownPrompt = kept("system-prompt", DEFAULT_PROMPT);
/** Of the chat that is open. */
export const systemPrompt = signal(ownPrompt.value);
/** As typed; a field that is not there is left to the model. */
export const sampling = kept<Record<string, number>>("sampling", {});

export const models = signal<string[]>([]);
const chosen = kept("model", "");
export const model = computed(() =>
  models.value.includes(chosen.value) ? chosen.value : (models.value[0] ?? ""),
);

export function chooseModel(name: string): void {
  chosen.value = name;
}

export async function loadModels(): Promise<void> {
  const list = await json<{ data: { id: string }[] }>("v1/models");
  models.value = list.data.map((one) => one.id);
}

/** The fields of a request that the user has chosen. */
export function choices(): Record<string, unknown> {
  // Also where there is but one: a key that is bound to it may ask by name only.
  const named = model.value ? { model: model.value } : {};
  return { ...sampling.value, ...named, details: true, stream: true };
}
