"""Everything a caller can be told went wrong, and the one envelope it is told in.

    HostError                            status code                      type
    ├── InvalidRequest                     400  invalid_value              invalid_request_error
    │   ├── MissingField                   400  missing_field
    │   ├── UnknownField                   400  unknown_field
    │   ├── InvalidJson                    400  invalid_json
    │   ├── InvalidHttp                    400  invalid_http
    │   ├── Unsupported                    400  unsupported
    │   ├── ContextLengthExceeded          400  context_length_exceeded
    │   ├── MissingApiKey                  401  missing_api_key            authentication_error
    │   │   └── InvalidApiKey              401  invalid_api_key
    │   ├── NotFound                       404  not_found
    │   │   └── ModelNotFound              404  model_not_found
    │   ├── MethodNotAllowed               405  method_not_allowed
    │   ├── RequestTimeout                 408  request_timeout
    │   ├── BodyTooLarge                   413  body_too_large
    │   ├── UnsupportedMediaType           415  unsupported_media_type
    │   └── HeadersTooLarge                431  headers_too_large
    ├── TooBusy                            429  overloaded                 rate_limit_error
    ├── InternalError                      500  internal_error             server_error
    ├── NotReady                           503  not_ready                  unavailable_error
    │   └── ServerDraining                 503  draining
    └── DeadlineExceeded                   504  deadline_exceeded          timeout_error

Messages are ours alone: they never hold the caller's input or another library's text. Knows no
framework; used on the event loop.
"""

import math
import random
from typing import Any, ClassVar

from model.engine import (
    Draining,
    EngineDead,
    EngineError,
    InvalidParameter,
    Overloaded,
    PromptTooLong,
)

JITTER = 0.2


class HostError(Exception):
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        **extra: int,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}
        self.extra = extra

    def envelope(self, request_id: str) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "code": self.code,
                "param": self.param,
                "request_id": request_id,
                **self.extra,
            }
        }


class InvalidRequest(HostError):
    status = 400
    code = "invalid_value"
    type = "invalid_request_error"


class MissingField(InvalidRequest):
    code = "missing_field"


class UnknownField(InvalidRequest):
    code = "unknown_field"


class InvalidJson(InvalidRequest):
    code = "invalid_json"


class InvalidHttp(InvalidRequest):
    code = "invalid_http"


class Unsupported(InvalidRequest):
    code = "unsupported"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class MissingApiKey(InvalidRequest):
    status = 401
    code = "missing_api_key"
    type = "authentication_error"
    text: ClassVar[str] = "this path needs a key: send Authorization: Bearer <key>"
    challenge: ClassVar[str] = "Bearer"

    def __init__(self) -> None:
        super().__init__(self.text, headers={"WWW-Authenticate": self.challenge})


class InvalidApiKey(MissingApiKey):
    code = "invalid_api_key"
    text = "this key is not valid"
    challenge = 'Bearer error="invalid_token"'


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"

    def __init__(self) -> None:
        super().__init__("this server does not serve that model", param="model")


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "body_too_large"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class HeadersTooLarge(InvalidRequest):
    status = 431
    code = "headers_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request line and the headers are larger than {limit} bytes", limit=limit
        )


class Retryable(HostError):
    """Says when to come back: in the header, and in the body where an item has no header."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        wait = retry_after_s if math.isfinite(retry_after_s) else 60.0
        # Those who were refused together shall not come back together.
        seconds = max(1, math.ceil(wait * random.uniform(1 - JITTER, 1 + JITTER)))
        super().__init__(message, headers={"Retry-After": str(seconds)})
        self.retry_after_s = seconds


class TooBusy(Retryable):
    status = 429
    code = "overloaded"
    type = "rate_limit_error"


class InternalError(HostError):
    def __init__(self) -> None:
        super().__init__("the server failed to answer; the log has the cause under this request id")


class NotReady(Retryable):
    status = 503
    code = "not_ready"
    type = "unavailable_error"


class ServerDraining(NotReady):
    code = "draining"


class DeadlineExceeded(HostError):
    status = 504
    code = "deadline_exceeded"
    type = "timeout_error"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the answer was complete")


# Every status that a route of the host may answer with, beside 200; for the OpenAPI document.
STATUSES = (400, 401, 404, 405, 408, 413, 415, 429, 500, 503, 504)


def from_engine(error: EngineError) -> HostError:
    """What the engine's refusal or failure means to a caller."""
    match error:
        case InvalidParameter():
            return InvalidRequest(error.message, param=error.param)
        case PromptTooLong():
            return context_length_exceeded(error.num_tokens, error.max_tokens, error.limit)
        case Overloaded():
            return TooBusy(
                "the server is at its limit; try again later", retry_after_s=error.retry_after_s
            )
        case Draining():
            return draining()
        case EngineDead():
            return NotReady("the engine has stopped; the server is restarting", retry_after_s=5)
        case _:
            return InternalError()


def draining() -> ServerDraining:
    return ServerDraining("the server is shutting down; ask another one", retry_after_s=1)


def context_length_exceeded(
    num_tokens: int,
    max_tokens: int,
    limit: int,
    prompt_param: str | None = None,
    answer_param: str = "max_tokens",
) -> ContextLengthExceeded:
    alone = num_tokens >= limit
    return ContextLengthExceeded(
        f"the prompt has {num_tokens} tokens and {max_tokens} new tokens are wanted,"
        f" {num_tokens + max_tokens} together; the model's context holds {limit}",
        param=prompt_param if alone else answer_param,
        limit=limit,
        count=num_tokens + max_tokens,
    )


def prompt_too_long(fewest: int, limit: int, param: str) -> ContextLengthExceeded:
    """Before any work: how many tokens they are nobody has counted, so there is no `count`."""
    return ContextLengthExceeded(
        f"the prompt has at least {fewest} tokens; the model's context holds {limit}",
        param=param,
        limit=limit,
    )
