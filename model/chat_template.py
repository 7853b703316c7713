"""What a chat template looks for in the messages, read from its source.

Knows no tokenizer: which of these texts are tokens is for others to say. Used once, at load.
"""

from collections.abc import Iterator

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser

SEEKING_METHODS = frozenset(
    {
        *("count", "endswith", "find", "index", "lstrip", "partition", "removeprefix"),
        *("removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip"),
        *("split", "startswith", "strip"),
    }
)
SEEKING_FILTERS = frozenset({"replace"})


def sought(template: str) -> set[str]:
    """The texts that it compares with, splits at or takes away; one that it only writes is none.

    Nothing of a template that cannot be parsed: rendering it says why.
    """
    environment = jinja2.Environment(
        extensions=[_Generation, jinja2.ext.loopcontrols],
        autoescape=False,  # noqa: S701 - it is only parsed
    )
    try:
        tree = environment.parse(template)
    except jinja2.TemplateError:
        return set()
    named = {
        node.target.name: node.node.value
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and isinstance(node.node, nodes.Const)
    }
    found = set()
    for seeking in _seeking(tree):
        for node in (seeking, *seeking.find_all((nodes.Const, nodes.Name))):
            if isinstance(node, nodes.Const):
                found.add(node.value)
            elif isinstance(node, nodes.Name):
                found.add(named.get(node.name))
    return {text for text in found if isinstance(text, str)}


def _seeking(tree: nodes.Template) -> Iterator[nodes.Node]:
    yield from tree.find_all(nodes.Compare)
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in SEEKING_METHODS:
            # What it puts in another's place it does not look for.
            yield from call.args[:1]
    for used in tree.find_all(nodes.Filter):
        if used.name in SEEKING_FILTERS:
            yield from used.args[:1]


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, which transformers adds to the language."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
