"""What several bodies share: how strict they are, and each sampling field with its range.

Owns every range of the HTTP side; the engine checks its own resolved values once more. Knows no
route and no door.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_SEED = 2**63 - 1
MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_SALT_LENGTH = 256
MAX_TIMEOUT_MS = 3_600_000


def _no_nul(text: str) -> str:
    # No terminal, log or database downstream treats NUL as a character like any other.
    if "\0" in text:
        raise PydanticCustomError("text_nul", "must not contain the character NUL")
    return text


def _stops(value: Any) -> Any:
    """One string or a list of them; a list afterwards. The path names an item only in a list."""
    if not isinstance(value, str):
        return value
    if not 1 <= len(value) <= MAX_STOP_LENGTH:
        raise PydanticCustomError("text_length", f"must have 1 to {MAX_STOP_LENGTH} characters")
    return [_no_nul(value)]


Text = Annotated[str, AfterValidator(_no_nul)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[
    list[Stop],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_stops),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH},
                {
                    "type": "array",
                    "maxItems": MAX_STOPS,
                    "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH},
                },
            ]
        }
    ),
]
CacheSalt = Annotated[Text, Field(min_length=1, max_length=MAX_SALT_LENGTH)]
MaxTokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Logprobs = Annotated[int, Field(ge=0, le=20)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, data: Any) -> Any:
        """pydantic makes an error of every unknown field, and only the first error is told: a body
        of nothing but short names would keep everybody waiting for the rest.
        """
        known = cls.model_fields
        if not isinstance(data, dict) or len(data) <= len(known):
            return data
        unknown = next(name for name in data if name not in known)
        return {name: data[name] for name in (*known, unknown) if name in data}


class Loose(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class SamplingFields(BaseModel):
    """A field that is absent takes the model's own value, greedy when the model has none.

    How strict it is, the body that has these fields says.
    """

    max_tokens: MaxTokens | None = Field(
        None, description="absent: 512, or what the context has left"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="0 is off")
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    stop: Stops | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=1e-3, le=2)
    timeout_ms: int | None = Field(None, ge=1, le=MAX_TIMEOUT_MS)
    cache_salt: CacheSalt | None = Field(
        None, description="cached prefixes are shared within one salt only; as vLLM's"
    )
