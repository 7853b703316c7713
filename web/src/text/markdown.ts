// Markdown to safe nodes, block by block: while an answer streams, only its last block is made again.

import { Marked, type Token, type TokenizerAndRendererExtension, type Tokens } from "marked";
import { decorate } from "./decorate";
import { sanitized } from "./sanitize";

const INLINE = /^\$(?![\s$])((?:\\[^]|[^\\$\n])+?)(?<![\s\\])\$(?!\d)|^\\\(([^]+?)\\\)/;
const DISPLAY = /^\$\$([^]+?)\$\$|^\\\[([^]+?)\\\]/;
const BLOCK = /^ {0,3}(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\])[ \t]*(?:\n|$)/;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function math(name: string, level: "inline" | "block", pattern: RegExp, marks: RegExp): TokenizerAndRendererExtension {
  const display = name !== "mathInline";
  return {
    name,
    level,
    start: (source: string) => {
      const found = source.search(marks);
      return found < 0 ? undefined : found;
    },
    tokenizer(source: string) {
      const match = pattern.exec(source);
      if (!match) return undefined;
      return { type: name, raw: match[0], tex: (match[1] ?? match[2] ?? "").trim() };
    },
    renderer: (token) => `<code class="tex${display ? " tex-block" : ""}">${escape(String(token.tex))}</code>`,
  };
}

const marked = new Marked({
  gfm: true,
  extensions: [
    math("mathBlock", "block", BLOCK, /(?:^|\n) {0,3}(?:\$\$|\\\[)/),
    math("mathDisplay", "inline", DISPLAY, /\$\$|\\\[/),
    math("mathInline", "inline", INLINE, /\$|\\\(/),
  ],
  renderer: {
    image({ href, title, text }: Tokens.Image): string {
      if (/^data:image\//i.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      // Nothing foreign is loaded; the reader may follow the link.
      return `<a href="${escape(href)}"${title ? ` title="${escape(title)}"` : ""}>${escape(text || href)}</a>`;
    },
    checkbox({ checked }: Tokens.Checkbox): string {
      return checked ? "☑ " : "☐ ";
    },
  },
});

export interface Block {
  /** The block's source with what it refers to; the same text gives the same nodes. */
  source: string;
  token: Token;
}

/** Milliseconds that the last text took to parse: who has more to come may want to wait as long. */
export let parsing = 0;

export function blocks(text: string): Block[] {
  const started = performance.now();
  const found = parse(text);
  parsing = performance.now() - started;
  return found;
}

function parse(text: string): Block[] {
  let tokens: Token[];
  try {
    tokens = marked.lexer(text);
  } catch {
    // Nested deeper than the parser's stack: readable as it is.
    return [{ source: text, token: { type: "text", raw: text, text: escape(text), escaped: true } as Token }];
  }
  return tokens.filter((token) => token.type !== "space").map((token) => ({ source: token.raw, token }));
}

export function render(block: Block): DocumentFragment {
  let html: string;
  try {
    html = marked.parser([block.token]);
  } catch {
    html = `<p>${escape(block.source)}</p>`;
  }
  const fragment = sanitized(html);
  decorate(fragment);
  return fragment;
}
