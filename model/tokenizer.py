"""Text to token ids and back, such that a caller's text can never become a control token.

A tokenizer's added tokens (`<|im_end|>`, `</s>`, `<think>`, …) are recognised wherever their
spelling stands. So the one that encodes here is a copy in which each of them is spelled by a
secret alias: the chat template's own tokens are rewritten to aliases, the caller's are not, and
the whole is encoded in one go, with the same merges as the original would make. Added tokens of
white space alone carry no meaning and stay as they are; so do, where `guard` is told, those that
a model says as text (`spoken`).

Knows no roles and no chat template (`prompt.py`). Encoding is called from worker threads: it
releases the GIL and changes nothing. Decoding is called on the event loop.
"""

import math
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from model.engine import ModelLoadError

# A log probability that no real entry of a vocabulary has.
_NEVER = -1e6


class Tokenizer:
    def __init__(self, original: Any) -> None:
        backend = getattr(original, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError("this model's tokenizer has no tokenizer.json form; not supported")
        self._original = original
        added = original.added_tokens_decoder
        control = {token_id: token for token_id, token in added.items() if not _is_plain(token)}
        self.control_ids = frozenset(control)
        self._aliases = {token.content: _alias(token_id) for token_id, token in control.items()}
        # A single character cannot be broken by a mark, so it is never read as a control token.
        literals = sorted((text for text in self._aliases if len(text) > 1), key=len, reverse=True)
        # (?!) matches nowhere.
        self._literals = re.compile("|".join(map(re.escape, literals)) or "(?!)")
        special = {token.content for token in control.values() if token.special}
        self._spoken = [
            text
            for text in literals
            if text not in special.union(original.all_special_tokens)
            # Or one of these could stand at another's place.
            and not any(text in other for other in literals if other != text)
        ]
        self._backend, self._true_ids = _aliased(backend, added, self._aliases)
        self._longest = _longest(backend)
        words = backend.get_vocab(with_added_tokens=False).values()
        self.last_plain_id = max({*words} - {*added}, default=-1)
        """Any id up to it may stand in a text; which added tokens do is for template and caller."""
        self._prefix = self._beginning()
        self._anchor = self.encode_text("a", begin=False)
        self.token_text = lru_cache(maxsize=16_384)(self._token_text)

    @property
    def original(self) -> Any:
        return self._original

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        end = self._original.eos_token_id
        return () if end is None else (end,)

    # --- encoding ---------------------------------------------------------------------------

    def at_least(self, characters: int) -> int:
        """No text of so many characters has fewer tokens: for refusing before any work."""
        return math.ceil(characters / self._longest)

    def encode_text(self, text: str, *, begin: bool = True) -> list[int]:
        """All of it is the caller's text."""
        ids = self._encode(text)
        return [*self._prefix, *ids] if begin else ids

    def encode_template(self, rendered: str, mark: str, *, begin: bool = False) -> list[int]:
        """`rendered` holds the caller's texts as `guard` returned them, and control tokens."""
        aliased = self._literals.sub(lambda match: self._aliases[match[0]], rendered)
        ids = self._encode(aliased.replace(mark, ""))
        return [*self._prefix, *ids] if begin else ids

    def new_mark(self) -> str:
        """Digits, which no template function changes; too many for a caller to guess."""
        while self._literals.search(mark := f"{secrets.randbelow(10**24):024}"):
            pass  # an added token that is a number itself
        return mark

    def spoken(self, texts: Collection[str]) -> tuple[str, ...]:
        """The added tokens within `texts` that are no special ones: answers are read with them in
        their text, such as `</think>`."""
        return tuple(token for token in self._spoken if any(token in text for text in texts))

    def guard(self, text: str, mark: str, left: Sequence[str] = ()) -> str:
        """Put `mark` into every control token's spelling but those `left`, and around the text.

        The border marks keep two texts, or a text and the template, from spelling one together.
        White space stays outside them: a template that trims finds it where it looks. What stands
        between two that are left is a text of its own: a template may take them out.
        """
        if left:
            pieces = re.split(f"({'|'.join(map(re.escape, left))})", text)
            pieces[::2] = [self.guard(piece, mark) for piece in pieces[::2]]
            return "".join(pieces)
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        before, after = text[:start], text[start + len(core) :]
        while self._literals.search(core):
            core = self._literals.sub(lambda match: match[0][0] + mark + match[0][1:], core)
        return f"{before}{mark}{core}{mark}{after}"

    def _encode(self, text: str) -> list[int]:
        # The batch call releases the GIL, the single one does not; "fast" leaves offsets out.
        ids = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [self._true_ids.get(token_id, token_id) for token_id in ids]

    def _beginning(self) -> tuple[int, ...]:
        """What the tokenizer puts before a plain text, such as a beginning-of-sequence token."""
        plain = self._original.encode("a", add_special_tokens=False)
        whole = self._original.encode("a", add_special_tokens=True)
        for start in range(len(whole)):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start])
        return ()

    # --- decoding ---------------------------------------------------------------------------

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._original.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _token_text(self, token_id: int) -> str:
        """One token as it stands inside a text: with its leading space."""
        if token_id in self.control_ids:
            return str(self._original.convert_ids_to_tokens(token_id))
        before = self.decode(self._anchor)
        whole = self.decode([*self._anchor, token_id])
        return whole[len(before) :] if whole.startswith(before) else self.decode([token_id])


def load_tokenizer(model: str, *, trust_remote_code: bool) -> Tokenizer:
    try:
        original = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"the model's tokenizer cannot be read ({type(error).__name__})"
        ) from error
    return Tokenizer(original)


def _alias(token_id: int) -> str:
    return f"\ue000{secrets.token_hex(12)}.{token_id}\ue001"


def _is_plain(token: Any) -> bool:
    """White space, or one ordinary character: carries no meaning for a template."""
    text = token.content.replace("\u2581", " ").strip()
    return not text or (len(text) == 1 and not token.special)


def _aliased(
    backend: Backend, added: Mapping[int, Any], aliases: Mapping[str, str]
) -> tuple[Backend, dict[int, int]]:
    """A copy of `backend` that knows the added tokens by their aliases, and its ids → true ids."""
    state = orjson.loads(backend.to_str())
    state.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    if state["model"].get("type") == "Unigram":
        # Its vocabulary is searched as a whole, so a control token's own entry could be chosen.
        state["model"]["vocab"] = [
            [text, _NEVER if text in aliases else score] for text, score in state["model"]["vocab"]
        ]
    copy = Backend.from_str(orjson.dumps(state).decode())
    true_ids: dict[int, int] = {}
    for token_id, token in sorted(added.items()):
        text = aliases.get(token.content, token.content)
        flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip")}
        normalized = token.normalized and token.content not in aliases
        copy.add_tokens([AddedToken(text, normalized=normalized, special=False, **flags)])
        copied = copy.token_to_id(text)
        assert copied is not None, "it has just been added"
        true_ids[copied] = token_id
    return copy, true_ids


def _longest(backend: Backend) -> float:
    """Characters that one token can stand for; without bound where a word can become "unknown"."""
    model = orjson.loads(backend.to_str())["model"]
    bounded = model.get("type") == "BPE" and (
        model.get("byte_fallback") or not model.get("unk_token")
    )
    return max(map(len, backend.get_vocab(with_added_tokens=True))) if bounded else math.inf
