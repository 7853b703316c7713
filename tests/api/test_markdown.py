"""What people and models write, as parts of a Markdown document: read by a parser of CommonMark."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from api import markdown

PARSER = MarkdownIt("commonmark")
PARTS = st.sampled_from(
    ["`", "``", "```", "````", "~~~", "\n", "\n\n", "\r\n", " ", "  ", "    ", "\t", "- ", "1. ",
     "> ", "# ", "## User", "===", "---", "***", "<b>", "<!--", "-->", "<script>", "</pre>",
     "<a href='", "<?", "<![CDATA[", "\\", "[a]: /b", "[a](b", "x", "y z", "&lt;", "|", "ä"]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=25).map("".join) | st.text(max_size=60)


def document(title: str, question: str, answer: str) -> list[Token]:
    return PARSER.parse(
        f"# {markdown.line(title)}\n\n## User\n\n{markdown.quoted(question)}\n\n## Assistant\n\n"
        f"{markdown.quoted(answer)}\n\nThe end.\n"
    )


@settings(max_examples=300, deadline=None)
@given(title=TEXTS, question=TEXTS, answer=TEXTS)
def test_nothing_that_is_written_changes_the_document(
    title: str, question: str, answer: str
) -> None:
    tokens = document(title, question, answer)
    top = [token.type for token in tokens if token.level == 0 and token.nesting != -1]
    quote = "blockquote_open"
    assert top == [*["heading_open"] * 2, quote, "heading_open", quote, "paragraph_open"]
    headings = [
        tokens[number + 1] for number, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0
    ]  # fmt: skip
    plain = "".join(child.content for child in headings[0].children or ())
    assert plain.split() == " ".join(title.split()).replace("\0", "\ufffd").split()
    inside = [*tokens, *(child for token in tokens for child in token.children or ())]
    assert not [token for token in inside if token.type.startswith("html")]


@pytest.mark.parametrize(
    "text",
    [
        "Use this:\n\n```c\n#include <stdio.h>\nint a[] = {1, 2};\n```\n\nand `vector<int>` too.",
        "- first\n\n  ```html\n  <b>bold</b>\n\n  <i>\n  ```\n- second",
        "1. one\n   - two\n     ```\n     <b>\n       `x`\n     ```\n2. three",
        "~~~\n```\n<b>\n```\n~~~",
        "````md\n```\n<b>\n```\n````",
        "```make\nall:\n\techo <b>\n```",
        "    indented code\n\nafter",
        "\tindented code\n\nafter",
        "| a | b |\n|---|---|\n| `<b>` | 2 |",
        "never ended\n\n```py\nx < y",
        "- ```py\n  a = b'<b>'\n  ```\n- `` ` `` and ``<b>``",
        "line  \nbreak\\\nbreak",
    ],
)
def test_code_stays_as_it_is(text: str) -> None:
    def blocks(parsed: list[Token], level: int) -> list[tuple[str, str, str, int]]:
        return [
            (token.type, token.content, token.info, token.level - level)
            for token in parsed
            if token.level >= level
        ]

    quoted = PARSER.parse(markdown.quoted(text))[1:-1]
    assert blocks(quoted, 1) == blocks(PARSER.parse(text), 0)


def test_html_is_shown_and_not_made() -> None:
    assert markdown.quoted("a <b>\n<!-- c\n\n`<d>` 1 < 2 `<e>\n") == (
        "> a \\<b>\n> \\<!-- c\n>\n> `<d>` 1 < 2 `\\<e>\n>"
    )
    assert (
        markdown.line("[x](javascript:a) <b> `c` #") == "\\[x\\](javascript:a) \\<b\\> \\`c\\` \\#"
    )


@pytest.mark.parametrize(
    "text", ["`" * 2**20, "` " * 2**19, "<a" * 2**19, "```\n" * 2**18, "- " * 2**19]
)
def test_a_megabyte_of_anything_takes_no_long_time(text: str) -> None:
    started = time.process_time()
    markdown.quoted(text)
    assert time.process_time() - started < 3
