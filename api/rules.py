"""What a field must be, in our words: pydantic's own are about its types, and change with it.

One table, from pydantic's kind of error; {…} are limits from its context. The model host has the
same sentences.
"""

from pydantic_core import ErrorDetails

_RULES = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} {unit}",
    "string_too_long": "must have at most {max_length} {unit}",
    "too_short": "must have at least {min_length} {unit}",
    "too_long": "must have at most {max_length} {unit}",
    "literal_error": "must be one of {expected}",
}


_LARGEST = 2**63 - 1


def rule_of(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"].startswith("int") and _is_beyond_64_bits(error.get("input")):
        return f"must be from {-_LARGEST - 1} to {_LARGEST}"
    if rule := _RULES.get(error["type"]):
        limits = {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in context.items()
        }
        return rule.format_map(limits | {"unit": _unit(error["type"], context)})
    # A check of our own says it in its message, which never holds what was sent.
    text = error["msg"].removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _is_beyond_64_bits(value: object) -> bool:
    """Of whole numbers that long, JSON's parser makes floats."""
    return isinstance(value, float) and abs(value) > _LARGEST


def _unit(kind: str, context: dict[str, object]) -> str:
    one = 1 in (context.get("min_length"), context.get("max_length"))
    return ("character" if kind.startswith("string") else "item") + ("" if one else "s")
