"""Every error that a client can get, and the one form in which it gets them.

    ApiError
    ├── InvalidRequest            400  invalid_value, missing_field, unknown_field, invalid_json, …
    ├── NotFound                  404  not_found, chat_not_found
    ├── MethodNotAllowed          405  method_not_allowed
    ├── RequestTimedOut           408  body_timeout
    ├── ChatBusy                  409  chat_busy
    ├── BodyTooLarge              413  body_too_large
    ├── UnsupportedMediaType      415  unsupported_media_type
    ├── Overloaded                429  overloaded                (Retry-After)
    ├── InternalError             500  internal_error
    ├── UpstreamError             502  upstream_error
    ├── ModelHostUnavailable      503  model_host_unavailable    (Retry-After)
    ├── Draining                  503  draining                  (Retry-After)
    ├── StoreUnavailable          503  database_unavailable      (Retry-After)
    ├── DeadlineExceeded          504  deadline_exceeded
    ├── StoreFull                 507  storage_full
    └── HostRefusal               as the model host said it

Messages are ours or the model host's; they never hold what the client sent.
"""

import random
from typing import Any, ClassVar

import orjson
from starlette.responses import Response


class ApiError(Exception):
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    default: ClassVar[str] = "The server failed; the cause is in its log"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.message = message or self.default
        super().__init__(self.message)
        self.code = code or self.code
        self.param = param
        self.retry_after_s = retry_after_s
        self.extra = extra or {}

    @property
    def http_status(self) -> int:
        return self.status

    @property
    def error_type(self) -> str:
        return self.type

    def body(self, request_id: str) -> dict[str, Any]:
        error = {
            "message": self.message,
            "type": self.error_type,
            "code": self.code,
            "param": self.param,
            "request_id": request_id,
        }
        return {"error": error | self.extra}

    def headers(self) -> dict[str, str]:
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(jittered(self.retry_after_s))}

    def response(self, request_id: str) -> Response:
        return Response(
            orjson.dumps(self.body(request_id)),
            status_code=self.http_status,
            media_type="application/json",
            headers=self.headers(),
        )


def jittered(seconds: float) -> int:
    """Whole seconds, spread upwards so that refused clients do not all come back at once."""
    return max(1, round(seconds * random.uniform(1.0, 1.5)))


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    default = "The request is not valid"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"
    default = "There is nothing at this path"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    default = "This path does not take that method"

    def __init__(self, allow: str) -> None:
        super().__init__()
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {"Allow": self.allow}


class RequestTimedOut(ApiError):
    status = 408
    type = "invalid_request_error"
    code = "body_timeout"
    default = "The body did not arrive in time"


class ChatBusy(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "chat_busy"
    default = "This chat is being answered by another request; try again when that has ended"


class BodyTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class UnsupportedMediaType(ApiError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"
    default = "Send application/json, not compressed"


class Overloaded(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    default = "Too many requests are being answered; try again later"


class InternalError(ApiError):
    pass


class UpstreamError(ApiError):
    status = 502
    code = "upstream_error"
    default = "The model host failed or broke off its answer"


class ModelHostUnavailable(ApiError):
    status = 503
    type = "unavailable_error"
    code = "model_host_unavailable"
    default = "The model host cannot be reached or is not ready; try again later"


class Draining(ApiError):
    status = 503
    type = "unavailable_error"
    code = "draining"
    default = "The server is shutting down; try again"


class StoreUnavailable(ApiError):
    status = 503
    type = "unavailable_error"
    code = "database_unavailable"
    default = "The chats' database does not answer; try again later"


class DeadlineExceeded(ApiError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    default = "The deadline passed before the answer was complete"


class StoreFull(ApiError):
    status = 507
    code = "storage_full"
    default = "The chats' database has no space left; the turn is not saved"


class HostRefusal(ApiError):
    """The model host's own refusal of the client's request, handed on with its numbers."""

    def __init__(self, status: int, kind: str, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self._status = status
        self._type = kind

    @property
    def http_status(self) -> int:
        return self._status

    @property
    def error_type(self) -> str:
        return self._type

    def headers(self) -> dict[str, str]:
        if self.retry_after_s is None:
            return {}
        # The host measured it: hand it on as it is.
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}
