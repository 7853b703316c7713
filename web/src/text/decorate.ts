// Adds to sanitized nodes what the page itself brings: frames around code, scrolling around tables, colours, formulas.

import { copyText } from "../lib/browser";
import { say } from "../lib/notice";

type Highlight = typeof import("./highlight");
type Maths = typeof import("./math");
let highlighter: Highlight | null = null;
let typesetter: Maths | null = null;

const BLOCKS = "p, h1, h2, h3, h4, h5, h6, ul, ol, li, blockquote, table, th, td, dl, dt, dd, details, summary";
const LETTER = /\p{L}/u;
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;

/** As dir="auto" has it, but that code does not count, and that blocks around others have one too. */
function direct(block: HTMLElement): void {
  const texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const letter = node.parentElement?.closest("code, pre, kbd, samp") ? null : LETTER.exec(node.nodeValue ?? "");
    if (!letter) continue;
    block.dir = RIGHT_TO_LEFT.test(letter[0]) ? "rtl" : "ltr";
    return;
  }
}

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
  for (const block of fragment.querySelectorAll<HTMLElement>(BLOCKS)) direct(block);
  for (const item of fragment.querySelectorAll("li")) {
    // The box is its bullet.
    if (/^\s*[☐☑] /.test(item.textContent ?? "")) item.classList.add("task");
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
