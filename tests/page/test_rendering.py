"""Markdown, code, tables, formulas."""

import asyncio

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Opener, Shot
from tests.page.sites import Site, answers, in_two_parts

RICH = r"""Here is a short tour. The **quadratic formula** solves $ax^2 + bx + c = 0$:

$$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$$

It costs $5 and $10 to run. In Python:

```python
import math

def solve(a: float, b: float, c: float) -> tuple[float, float]:
    '''Both roots, the larger first.'''
    root = math.sqrt(b * b - 4 * a * c)  # may raise ValueError
    return (-b + root) / (2 * a), (-b - root) / (2 * a)
```

| Capital | Country | People |
|:--|:--|--:|
| New Delhi | India | 33,000,000 |
| Tokyo | Japan | 37,400,000 |

1. First `inline code`, then a [link](https://example.org).
2. Then this:
   - [x] done
   - [ ] to do

> A quotation stands apart.
"""


EARLIER = [
    "What should I see in Lisbon?",
    "Explain leases and fencing",
    "A haiku about Kubernetes",
    "Capital of France?",
]


def test_an_answer_in_markdown(site: Site, opener: Opener, shot: Shot) -> None:
    for number, question in enumerate(EARLIER):
        site.ask(f"earlier-{number}", question)
    chat = opener(site.url, permissions=["clipboard-read", "clipboard-write"])
    site.host.faults = [answers(RICH)]
    chat.ask("Show me a bit of everything")
    prose = chat.prose
    expect(prose.get_by_role("cell", name="New Delhi")).to_be_visible()
    expect(prose.get_by_role("columnheader", name="People")).to_have_attribute("align", "right")
    expect(prose.locator("math")).to_have_count(2)
    expect(prose.locator("math msqrt")).to_have_count(1)
    expect(prose.locator("math[display=block]")).to_have_count(1)
    # Money is not a formula.
    expect(prose.get_by_text("It costs $5 and $10 to run.")).to_be_visible()
    expect(prose.locator(".hljs-keyword", has_text="import")).to_be_visible()
    expect(prose.get_by_text("☑ done")).to_have_css("list-style-type", "none")
    # On a phone a line may end between two figures, not within one.
    figures = chat.answer.locator(".figures span")
    assert figures.evaluate_all("all => all.map(one => one.getClientRects().length)") == [1, 1, 1]
    assert chat.has_no_sideways_scroll()
    chat.page.locator("main").evaluate("box => box.scrollTop = 0")
    shot(chat, "rich")
    prose.get_by_role("button", name="Copy this python code").click()
    expect(chat.page.locator(".toast")).to_have_text("Code copied")
    copied = chat.page.evaluate("navigator.clipboard.readText()")
    assert copied == RICH.split("```python\n")[1].split("\n```")[0]


def test_wide_things_scroll_by_themselves(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    wide = "| " + " | ".join(f"column{n}" for n in range(40)) + " |\n" + "|-" * 40 + "|\n"
    formula = "$$" + " + ".join(f"x_{{{n}}}" for n in range(99)) + "$$"
    text = f"{wide}\n\n```\n{'long ' * 99}\n```\n\n{formula}\n\n{'unbroken' * 99}"
    site.host.faults = [answers(text)]
    chat.ask("Wide")
    expect(chat.prose.locator("math")).to_be_visible()
    assert chat.has_no_sideways_scroll()
    main = chat.page.locator("main")
    assert main.evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize("size", ["desktop"])
def test_what_is_no_formula_and_no_markdown_stays_text(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [answers(r"A bad one: $\frac{$ and $\nosuchmacro{x}$ end")]
    chat.ask("Broken")
    expect(chat.prose).to_contain_text(r"\nosuchmacro{x}")
    expect(chat.prose).to_contain_text("end")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_text_that_would_break_the_parser_is_shown(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [answers(f"{'>' * 6000} deep"), answers(f"{'[' * 3000}{'*a **b ' * 200}")]
    chat.ask("Deep")
    expect(chat.prose).to_contain_text("deep")
    chat.ask("Long")
    expect(chat.prose).to_contain_text("[[[")


def test_a_reader_who_scrolled_up_is_left_there(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    paragraphs = [f"Paragraph {n}." for n in range(80)]
    rest = asyncio.Event()
    site.host.faults = [
        in_two_parts("\n\n".join(paragraphs[:40]), "\n\n".join(["", *paragraphs[40:]]), rest)
    ]
    chat.send("A long one")
    expect(chat.prose).to_contain_text("Paragraph 39.")
    chat.page.locator("main").evaluate("box => box.scrollTop = 0")
    expect(chat.button("To the end")).to_be_visible()
    site.say(rest)
    chat.finished()
    assert chat.page.locator("main").evaluate("box => box.scrollTop") < 100
    chat.button("To the end").click()
    expect(chat.prose.get_by_text("Paragraph 79.")).to_be_in_viewport()


MIXED = """Use this:

\u05d4\u05e0\u05d4 \u05d4\u05e7\u05d5\u05d3 `a - b (1)`:

```python
print("\u05e9\u05dc\u05d5\u05dd", 1)
```

- \u05e8\u05d0\u05e9\u05d5\u05df
- second

`x` \u05e9\u05d5\u05d5\u05d4 3

| \u05e2\u05d9\u05e8 | City |
|---|---|
| \u05d9\u05e8\u05d5\u05e9\u05dc\u05d9\u05dd | Rome |

> \u05e6\u05d9\u05d8\u05d5\u05d8
"""


def test_each_block_has_its_own_direction_and_code_is_left_to_right(
    site: Site, opener: Opener, shot: Shot
) -> None:
    chat = opener(site.url)
    site.host.faults = [answers(MIXED), answers(MIXED.removeprefix("Use this:"))]
    for _ in range(2):
        chat.ask("Both ways")
        direction = "nodes => nodes.map(node => getComputedStyle(node).direction)"
        found = {
            name: chat.prose.locator(name).evaluate_all(direction)
            for name in ("p", "code", "pre", ".code-head", "ul", "li", "td", "blockquote")
        }
        assert found.pop("p")[-3:] == ["rtl", "rtl", "rtl"]
        assert found == {
            "code": ["ltr"] * 3,
            "pre": ["ltr"],
            ".code-head": ["ltr"],
            "ul": ["rtl"],
            "li": ["rtl", "ltr"],
            "td": ["rtl", "ltr"],
            "blockquote": ["rtl"],
        }
        assert chat.has_no_sideways_scroll()
    chat.page.locator("main").evaluate("box => box.scrollTop = 0")
    shot(chat, "directions")
