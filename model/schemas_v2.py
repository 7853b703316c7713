"""The body of the Open Inference Protocol (V2), as far as text needs it: BYTES tensors as JSON.

Knows no KServe class and no engine.
"""

from typing import Any

from pydantic import Field

from model.errors import InvalidRequest, MissingField, UnknownField
from model.fields import Loose, Text
from model.parsing import validate
from model.schemas import Sampling

INPUTS = ("user_prompt", "system_prompt", "chat_id")
OUTPUTS = ("response", "chat_id", "finish_reason", "error")


class Tensor(Loose):
    name: Text
    shape: list[int] = Field(max_length=8)
    datatype: Text
    data: list[Any]


class InferBody(Loose):
    id: Text | None = Field(None, max_length=256)
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor] = Field(max_length=16)


class InferOutputTensor(Loose):
    name: str
    shape: list[int]
    datatype: str
    data: list[str]


class InferAnswer(Loose):
    model_name: str
    id: str
    outputs: list[InferOutputTensor]


def tensors(body: InferBody) -> dict[str, Tensor]:
    """By name, each checked: known, given once, BYTES, as many texts as its shape says."""
    found: dict[str, Tensor] = {}
    for index, tensor in enumerate(body.inputs):
        if tensor.name not in INPUTS or tensor.name in found:
            raise UnknownField(
                f"inputs[{index}].name: each of {', '.join(INPUTS)} once at most",
                param=f"inputs[{index}].name",
            )
        _check(tensor)
        found[tensor.name] = tensor
    if "user_prompt" not in found:
        raise MissingField("inputs.user_prompt: this input is required", param="inputs.user_prompt")
    return found


def _check(tensor: Tensor) -> None:
    param = f"inputs.{tensor.name}"
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"{param}: the datatype must be BYTES", param=param)
    size = 1
    for length in tensor.shape:
        size *= length
    if not tensor.shape or not tensor.data or size != len(tensor.data):
        raise InvalidRequest(
            f"{param}: shape and data must have the same size, at least 1", param=param
        )


def queries(body: InferBody, most: int) -> list[dict[str, Any]]:
    """One query per row; a system prompt of one row counts for all. Counted before any is made."""
    found = tensors(body)
    rows = len(found["user_prompt"].data)
    if rows > most:
        raise InvalidRequest(
            f"inputs.user_prompt: must have at most {most} texts, not {rows}",
            param="inputs.user_prompt",
        )
    columns: dict[str, list[Any]] = {}
    for name, tensor in found.items():
        data = (
            tensor.data * rows if name == "system_prompt" and len(tensor.data) == 1 else tensor.data
        )
        if len(data) != rows:
            raise InvalidRequest(
                f"inputs.{name}: must have as many texts as user_prompt", param=f"inputs.{name}"
            )
        columns[name] = data
    options = body.parameters or {}
    validate(Sampling, options, "parameters")
    return [
        {**options, **{name: data[row] for name, data in columns.items()}} for row in range(rows)
    ]
