// Formulas as MathML, which the browser itself sets. A file of its own: only an answer with a formula loads it.

import temml from "temml";
import { sanitizeMath } from "./sanitize";

const MOST_CHARACTERS = 10_000;

export function typeset(formula: HTMLElement): void {
  const source = formula.textContent ?? "";
  if (source.length > MOST_CHARACTERS) return;
  const displayMode = formula.classList.contains("tex-block");
  const holder = document.createElement(displayMode ? "div" : "span");
  holder.className = displayMode ? "math math-block" : "math";
  try {
    temml.render(source, holder, { displayMode, throwOnError: true, trust: false, maxSize: [20, 200], maxExpand: 300 });
  } catch {
    // Not a formula after all, or not yet: its source stays.
    return;
  }
  sanitizeMath(holder);
  if (displayMode) {
    holder.tabIndex = 0;
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", "Formula");
  }
  formula.replaceWith(holder);
}
