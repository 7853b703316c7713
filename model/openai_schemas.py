"""The bodies of OpenAI's chat and text completions, as far as this server gives what they ask.

A field that would change the answer and is not supported is refused; any other unknown field is
ignored, as OpenAI's own server does. Knows no engine.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic.json_schema import WithJsonSchema

from model.errors import InvalidRequest, MissingField, ModelNotFound, Unsupported
from model.fields import Logprobs, Loose, MaxTokens, SamplingFields, Text
from model.schemas import MAX_MESSAGES, Message, Sampling

MAX_CHOICES = 8
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
OTHER_ROLES = ("tool", "function")

# Fields that would change the answer → the values that ask for nothing. OpenAI's, then vLLM's.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "web_search_options": (None,),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "continue_final_message": (None, False),
    "prompt_logprobs": (None,),
    "stop_token_ids": (None, []),
    "bad_words": (None, []),
    "allowed_token_ids": (None, []),
    "use_beam_search": (None, False),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
}
WHY_NOT = {
    "tools": "not supported by this server; leave it out, or send an empty list",
    "response_format": 'not supported by this server, except {"type": "text"}',
    "best_of": "not supported by this server; ask for n answers and choose",
}


class StreamOptions(Loose):
    include_usage: bool | None = None


class Completion(SamplingFields, Loose):
    """What both kinds share."""

    model: Text
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    min_tokens: int | None = Field(None, ge=0, description="no end before so many; as vLLM's")
    ignore_eos: bool | None = Field(None, description="as vLLM's: only length or stop ends it")
    add_special_tokens: bool | None = Field(
        None,
        description="as vLLM's: begin with the tokenizer's own beginning; absent: a text does, a"
        " chat does where the model has no template; token ids are taken as they are",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name, nothing in UNSUPPORTED.items():
                if data.get(name) not in nothing:
                    why = WHY_NOT.get(name, "not supported by this server")
                    raise Unsupported(f"{name}: {why}", param=name)
        return data

    @property
    def count(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def check_model(self, served: str) -> None:
        if self.model != served:
            raise ModelNotFound

    def _sampling(self, **resolved: Any) -> Sampling:
        names = Sampling.model_fields.keys() & type(self).model_fields.keys() - resolved.keys()
        return Sampling.model_construct(**{name: getattr(self, name) for name in names}, **resolved)


class ChatMessage(Loose):
    role: str
    content: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "type": {"const": "text"},
                                "text": {"type": "string"},
                            },
                            "required": ["type", "text"],
                        },
                    },
                ]
            }
        ),
    ] = None
    tool_calls: Annotated[Any, Field(exclude=True)] = None


class ChatCompletionRequest(Completion):
    messages: Annotated[
        list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    ]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs")
        return self

    def take_texts(self) -> list[Message]:
        """Checked here, so that it is done once. What they were made from is let go: a body of a
        megabyte in parts is ten as objects, which would lie there until the answer ends.
        """
        texts = [_message(item, f"messages[{index}]") for index, item in enumerate(self.messages)]
        if not texts[-1].content.strip():
            path = f"messages[{len(texts) - 1}].content"
            raise InvalidRequest(f"{path}: must not be empty or white space only", param=path)
        self.messages.clear()
        return texts

    @property
    def max_tokens_param(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    def sampling(self) -> Sampling:
        return self._sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def _message(item: ChatMessage, path: str) -> Message:
    if item.role in OTHER_ROLES:
        raise Unsupported(f"{path}.role: not supported by this server", param=f"{path}.role")
    if item.role not in ROLES:
        raise InvalidRequest(
            f"{path}.role: must be one of {', '.join(ROLES)}", param=f"{path}.role"
        )
    if item.tool_calls:
        raise Unsupported(
            f"{path}.tool_calls: not supported by this server", param=f"{path}.tool_calls"
        )
    content = _content(item.content, f"{path}.content")
    return Message.model_construct(role=ROLES[item.role], content=content)


def _content(content: Any, path: str) -> str:
    if content is None:
        raise MissingField(f"{path}: this field is required", param=path)
    if isinstance(content, str):
        return _text(content, path)
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}: must be a string or a list of text parts", param=path)
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: Any, path: str) -> str:
    if not isinstance(part, dict):
        raise InvalidRequest(f"{path}: must be an object", param=path)
    if part.get("type") != "text":
        raise Unsupported(f"{path}.type: only text is supported", param=f"{path}.type")
    return _text(part.get("text"), f"{path}.text")


def _text(text: Any, path: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}: must be a string", param=path)
    if "\0" in text:
        raise InvalidRequest(f"{path}: must not contain the character NUL", param=path)
    return text


class CompletionRequest(Completion):
    prompt: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": {"type": "integer"}},
                    {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                ]
            }
        ),
    ]
    logprobs: Logprobs | None = None
    echo: bool | None = Field(None, description="the prompt stands before the answer")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise Unsupported(
                "echo: not supported together with logprobs; prompts have none here", param="echo"
            )
        return self

    def prompts(self, most_choices: int) -> list[tuple[str, str | list[int]]]:
        """Each with the field that it stands in. Counted before any is looked at: a body holds
        some hundred thousand.
        """
        if isinstance(self.prompt, str) or _are_ids(self.prompt):
            self._check_choices(1, most_choices)
            return [("prompt", _prompt(self.prompt, "prompt"))]
        if not isinstance(self.prompt, list) or not self.prompt:
            raise InvalidRequest("prompt: must be a string or a list, not empty", param="prompt")
        self._check_choices(len(self.prompt), most_choices)
        named = [(f"prompt[{index}]", item) for index, item in enumerate(self.prompt)]
        return [(name, _prompt(item, name)) for name, item in named]

    def _check_choices(self, prompts: int, most: int) -> None:
        choices = prompts * self.count
        if choices > most:
            raise InvalidRequest(
                f"prompt: {prompts} prompts with n = {self.count} make {choices} choices;"
                f" at most {most} can be asked for at once",
                param="prompt",
            )

    @property
    def max_tokens_param(self) -> str:
        return "max_tokens"

    def sampling(self) -> Sampling:
        return self._sampling()


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _prompt(value: Any, path: str) -> str | list[int]:
    if isinstance(value, str):
        if not value:
            raise InvalidRequest(f"{path}: must not be empty", param=path)
        return _text(value, path)
    if not _are_ids(value):
        raise InvalidRequest(f"{path}: must be a string or token ids, not empty", param=path)
    if {*map(type, value)} != {int}:
        index = next(index for index, item in enumerate(value) if type(item) is not int)
        raise InvalidRequest(f"{path}[{index}]: must be a whole number", param=f"{path}[{index}]")
    return list(value)
