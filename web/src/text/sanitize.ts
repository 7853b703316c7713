// What may come out of a model's text as HTML. Two walls stand behind this one: the page's Content-Security-Policy
// runs no script but its own files, and Trusted Types let no other code than DOMPurify turn text into HTML.

import DOMPurify, { type Config } from "dompurify";

const TAGS = [
  "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4",
  "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "small", "span",
  "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
];
// No style, no id, no name: nothing that could look like, or stand in for, a part of the page.
const ATTRIBUTES = ["href", "title", "class", "src", "alt", "align", "colspan", "rowspan", "start", "open"];
const CLASS = /^(?:language-[\w+#.-]{1,40}|tex|tex tex-block|math|math math-block|hljs(?:-[a-z-]+)?(?: [a-z_]+)*)$/;
const CONFIG: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ATTRIBUTES,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // The pattern above is asked about every other attribute too, unless it is named here.
  ADD_URI_SAFE_ATTR: ["align", "colspan", "rowspan", "start", "open"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

// DOMPurify lets data: pass for images whatever ALLOWED_URI_REGEXP says; an SVG among them is of no use to us.
const IMAGE_DATA = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,/i;

DOMPurify.addHook("uponSanitizeAttribute", (node, data) => {
  const isMath = node.namespaceURI !== "http://www.w3.org/1999/xhtml";
  if (data.attrName === "class" && !isMath && !CLASS.test(data.attrValue)) data.keepAttr = false;
  // An image elsewhere would tell its owner who reads this, and could carry off what was said.
  if (data.attrName === "src") data.keepAttr = node.nodeName === "IMG" && IMAGE_DATA.test(data.attrValue.trim());
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

export function sanitized(html: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(html, CONFIG);
  for (const image of fragment.querySelectorAll("img:not([src])")) {
    image.replaceWith(document.createTextNode(image.getAttribute("alt") ?? ""));
  }
  return fragment;
}

const MATH: Config & { IN_PLACE: true } = {
  USE_PROFILES: { mathMl: true },
  ADD_TAGS: ["div", "span"],
  ADD_ATTR: ["class", "style"],
  FORBID_ATTR: ["href", "src", "xlink:href"],
  IN_PLACE: true,
};

/** Formulas are made of MathML nodes by the typesetter; they pass here too. Its styles are sizes that it computed. */
export function sanitizeMath(node: HTMLElement): void {
  DOMPurify.sanitize(node, MATH);
}
