"""The shapes of OpenAI's answers: whole choices and pieces of them. Knows no engine."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from model.generation import Answer, Delta, TextLogprob, TokenText


def usage(answers: Sequence[Answer], choices_per_prompt: int) -> dict[str, Any]:
    """A prompt counts once, however many choices were made of it."""
    prompts = answers[::choices_per_prompt]
    prompt_tokens = sum(answer.end.prompt_tokens for answer in prompts)
    completion_tokens = sum(answer.end.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sum(answer.end.cached_tokens for answer in prompts)
        },
    }


class Form(Protocol):
    """What chat and text differ in. One object serves one response."""

    prefix: ClassVar[str]
    whole: ClassVar[str]
    chunk: ClassVar[str]

    def choice(self, index: int, answer: Answer) -> dict[str, Any]: ...

    def opening(self, index: int) -> list[dict[str, Any]]: ...

    def pieces(self, index: int, delta: Delta) -> list[dict[str, Any]]: ...


class Chat(Form):
    prefix: ClassVar[str] = "chatcmpl"
    whole: ClassVar[str] = "chat.completion"
    chunk: ClassVar[str] = "chat.completion.chunk"

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self._logprobs(answer.logprobs),
            "finish_reason": answer.end.finish_reason,
        }

    def opening(self, index: int) -> list[dict[str, Any]]:
        return [self._piece(index, {"role": "assistant", "content": ""})]

    def pieces(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        pieces = []
        if delta.text or delta.logprobs:
            logprobs = self._logprobs(delta.logprobs)
            pieces.append(self._piece(index, {"content": delta.text}, logprobs=logprobs))
        if delta.end is not None:
            pieces.append(self._piece(index, {}, finish_reason=delta.end.finish_reason))
        return pieces

    def _piece(self, index: int, delta: dict[str, Any], **values: Any) -> dict[str, Any]:
        return {
            "index": index,
            "delta": delta,
            "logprobs": values.get("logprobs"),
            "finish_reason": values.get("finish_reason"),
        }

    def _logprobs(self, items: Sequence[TextLogprob]) -> dict[str, Any] | None:
        if not items:
            return None
        content = [
            {
                **_token(item.token),
                "top_logprobs": [_token(token) for token in item.top],
            }
            for item in items
        ]
        return {"content": content, "refusal": None}


def _token(token: TokenText) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.raw)}


class Text(Form):
    prefix: ClassVar[str] = "cmpl"
    whole: ClassVar[str] = "text_completion"
    chunk: ClassVar[str] = "text_completion"

    def __init__(self, echo: Callable[[int], str] = lambda _: "") -> None:
        """`echo` gives what stands before the answer of a choice; asked once it has begun."""
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        return {
            "index": index,
            "text": self._echo(index) + answer.text,
            "logprobs": self._logprobs(index, answer.logprobs),
            "finish_reason": answer.end.finish_reason,
        }

    def opening(self, index: int) -> list[dict[str, Any]]:
        before = self._echo(index)
        return [self._piece(index, before)] if before else []

    def pieces(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        return [
            self._piece(
                index,
                delta.text,
                logprobs=self._logprobs(index, delta.logprobs),
                finish_reason=delta.end.finish_reason if delta.end else None,
            )
        ]

    def _piece(self, index: int, text: str, **values: Any) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": values.get("logprobs"),
            "finish_reason": values.get("finish_reason"),
        }

    def _logprobs(self, index: int, items: Sequence[TextLogprob]) -> dict[str, Any] | None:
        if not items:
            return None
        offsets = []
        for item in items:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(item.token.text)
        return {
            "tokens": [item.token.text for item in items],
            "token_logprobs": [item.token.logprob for item in items],
            "top_logprobs": [{token.text: token.logprob for token in item.top} for item in items],
            "text_offset": offsets,
        }
