"""From messages, a text or token ids to the prompt's token ids.

Owns roles and the chat template: the model's own, or a plain one for models without. A caller's
text that spells a control token stays text (`tokenizer.py` says how). Rendering and encoding run
in worker threads, after the size has been capped; nothing here touches the event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from model.chat_template import sought
from model.engine import ModelLoadError
from model.engine.errors import first_line
from model.errors import InvalidRequest, prompt_too_long
from model.schemas import Message
from model.tokenizer import Tokenizer

# For models without a chat template: turns with the speaker's name before each.
PLAIN_NAMES = {"system": "", "user": "User: ", "assistant": "Assistant: "}
PLAIN_STOPS = ("\nUser:",)
PROBE_SYSTEM = {"role": "system", "content": "0123456789system"}
PROBE_USER = {"role": "user", "content": "0123456789user"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Exactly one of the three; `param` is the field that a complaint names."""

    param: str
    messages: Sequence[Message] | None = None
    text: str | None = None
    token_ids: Sequence[int] | None = None
    add_special_tokens: bool | None = None
    """Whether the tokenizer begins the text as it begins texts. None: yes for a plain text, and
    for messages only where no template writes the beginning itself. Token ids are whole as they
    are."""


class PromptEncoder:
    def __init__(self, tokenizer: Tokenizer, max_model_len: int, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._check_vocabulary()
        self._has_template = bool(getattr(tokenizer.original, "chat_template", None))
        self._takes_system = self._has_template and self._keeps_system()
        if self._has_template:
            self._check_template()
        # A template that drops earlier reasoning has to find where it ends. The words of an
        # assistant are the model's, which says such tokens as text; only those that the template
        # looks for are left, and never a special one. Users and systems have no such words.
        self._left = {"assistant": tokenizer.spoken(self._sought())}
        self._check_frame()

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings of a chat, beside the model's own end of turn."""
        return () if self._has_template else PLAIN_STOPS

    def encode(self, prompt: Prompt) -> list[int]:
        if prompt.token_ids is not None:
            return self._checked(prompt.token_ids, prompt.param)
        self._cap(prompt)
        token_ids = self._encode_text(prompt) if prompt.messages is None else self._chat(prompt)
        if (token_id := max(token_ids, default=0)) >= self._vocab_size:
            raise InvalidRequest(
                f"{prompt.param}: the token {self._tokenizer.token_text(token_id)!r} is in it,"
                " which this model's tokenizer knows and its weights do not",
                param=prompt.param,
            )
        return token_ids

    def _encode_text(self, prompt: Prompt) -> list[int]:
        begin = prompt.add_special_tokens is not False
        return self._tokenizer.encode_text(prompt.text or "", begin=begin)

    def _chat(self, prompt: Prompt) -> list[int]:
        messages = list(prompt.messages or ())
        mark = self._tokenizer.new_mark()
        guarded = [{"role": item.role, "content": self._guarded(item, mark)} for item in messages]
        rendered = self._render(guarded, prompt.param)
        asked = prompt.add_special_tokens
        # A template writes the beginning of the sequence itself; the plain form does not.
        begin = asked if asked is not None else not self._has_template
        return self._tokenizer.encode_template(rendered, mark, begin=begin)

    def _guarded(self, message: Message, mark: str) -> str:
        return self._tokenizer.guard(message.content, mark, self._left.get(message.role, ()))

    def _cap(self, prompt: Prompt) -> None:
        texts = (
            [prompt.text or ""]
            if prompt.messages is None
            else [item.content for item in prompt.messages]
        )
        fewest = self._tokenizer.at_least(sum(map(len, texts)))
        if fewest > self._max_model_len:
            raise prompt_too_long(fewest, self._max_model_len, prompt.param)

    def _checked(self, token_ids: Sequence[int], param: str) -> list[int]:
        for position, token_id in enumerate(token_ids):
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{param}[{position}]: must be a token id from 0 to {self._vocab_size - 1}",
                    param=f"{param}[{position}]",
                )
        return list(token_ids)

    def _render(self, messages: list[dict[str, str]], param: str) -> str:
        if not self._has_template:
            return _plain(messages)
        if not self._takes_system:
            messages = _merge_system(messages)
        try:
            return self._template(messages)
        except (jinja2.TemplateError, TypeError, KeyError, IndexError, ValueError):
            raise InvalidRequest(
                "the model's chat template does not take these roles in this order", param=param
            ) from None

    def _template(self, messages: list[dict[str, str]]) -> str:
        text: str = self._tokenizer.original.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _sought(self) -> set[str]:
        if not self._has_template:
            return set()
        return sought(self._tokenizer.original.get_chat_template())

    def _keeps_system(self) -> bool:
        """Templates without a system role refuse it, or leave it out without a word."""
        try:
            return PROBE_SYSTEM["content"] in self._template([PROBE_SYSTEM, PROBE_USER])
        except Exception:  # noqa: BLE001 - a template raises anything
            return False

    def _check_template(self) -> None:
        """One that renders no chat at all would have every caller blamed for it."""
        try:
            self._template([PROBE_USER])
        except Exception as error:
            if not self._takes_system:
                raise ModelLoadError(
                    f"the chat template of the model's tokenizer renders no question:"
                    f" {first_line(error)}"
                ) from error

    def _check_vocabulary(self) -> None:
        """Added tokens beyond the weights are common, and mostly never used; a word is not."""
        if self._tokenizer.last_plain_id >= self._vocab_size:
            raise ModelLoadError(
                f"the model's tokenizer has token ids up to {self._tokenizer.last_plain_id},"
                f" but its weights only up to {self._vocab_size - 1}; they do not belong together"
            )

    def _check_frame(self) -> None:
        """What every prompt begins with, or is written into, must be known to the weights."""
        probes = [PROBE_SYSTEM, PROBE_USER] if self._takes_system else [PROBE_USER]
        chat = Prompt("messages", messages=[Message.model_validate(probe) for probe in probes])
        token_id = max([*self._encode_text(Prompt("prompt", text="a")), *self._chat(chat)])
        if token_id >= self._vocab_size:
            raise ModelLoadError(
                f"every prompt has the token {self._tokenizer.token_text(token_id)!r} ({token_id})"
                f" of the model's tokenizer, but its weights end at {self._vocab_size - 1}"
            )


def _merge_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """All system text goes before the first user text."""
    system = [item["content"] for item in messages if item["role"] == "system" and item["content"]]
    rest = [dict(item) for item in messages if item["role"] != "system"]
    first = next((item for item in rest if item["role"] == "user"), None)
    if system and first is not None:
        first["content"] = "\n\n".join([*system, first["content"]])
    return rest


def _plain(messages: list[dict[str, str]]) -> str:
    turns = [PLAIN_NAMES[item["role"]] + item["content"] for item in messages if item["content"]]
    separator = "\n\n" if messages[0]["role"] == "system" and len(turns) > 1 else "\n"
    return turns[0] + separator + "\n".join([*turns[1:], "Assistant:"])
