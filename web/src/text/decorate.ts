// Adds to sanitized nodes what the page itself brings: frames around code, scrolling around tables, colours, formulas.

import { copyText } from "../lib/browser";
import { say } from "../lib/notice";

type Highlight = typeof import("./highlight");
type Maths = typeof import("./math");
let highlighter: Highlight | null = null;
let typesetter: Maths | null = null;

export function decorate(fragment: DocumentFragment): void {
  for (const table of fragment.querySelectorAll("table")) {
    const frame = element("div", "table");
    // What scrolls has to be reachable by keyboard.
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const code of fragment.querySelectorAll<HTMLElement>("pre > code")) frameCode(code);
  const formulas = [...fragment.querySelectorAll<HTMLElement>("code.tex")];
  if (formulas.length) void typeset(formulas);
}

function frameCode(code: HTMLElement): void {
  const pre = code.parentElement!;
  const language = /^language-(\S+)/.exec(code.className)?.[1] ?? "";
  const text = (code.textContent ?? "").replace(/\n$/, "");
  const frame = element("div", "code");
  const head = element("div", "code-head");
  const label = element("span", "code-language");
  label.textContent = language || "text";
  const button = element("button", "quiet");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy this ${language || "text"} code`);
  button.addEventListener("click", () => void copyText(text).then((done) => tell(button, done)));
  head.append(label, button);
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code in ${language}` : "Code");
  pre.replaceWith(frame);
  frame.append(head, pre);
  if (language) void colour(code, text, language);
}

function tell(button: HTMLButtonElement, done: boolean): void {
  button.textContent = done ? "Copied" : "Not copied";
  say(done ? "Code copied" : "The browser does not let this page copy");
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

async function colour(code: HTMLElement, text: string, language: string): Promise<void> {
  // When it is there already, colour before the first paint: a streaming block would flicker otherwise.
  if (!highlighter) highlighter = await import("./highlight").catch(() => null);
  highlighter?.highlight(code, text, language);
}

async function typeset(formulas: HTMLElement[]): Promise<void> {
  if (!typesetter) typesetter = await import("./math").catch(() => null);
  for (const formula of formulas) typesetter?.typeset(formula);
}

function element<K extends keyof HTMLElementTagNameMap>(name: K, className: string): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.className = className;
  return made;
}
