"""Every error that a client can get, and the one form in which it gets them.

    ApiError
    ├── InvalidRequest            400  invalid_value, missing_field, unknown_field, invalid_json, …
    ├── MissingApiKey             401  missing_api_key           (WWW-Authenticate)
    ├── InvalidApiKey             401  invalid_api_key           (WWW-Authenticate)
    ├── PermissionDenied          403  scope_missing, model_not_allowed, auth_is_off
    ├── InvalidHttp               400  invalid_http
    ├── NotFound                  404  not_found, chat_not_found
    ├── MethodNotAllowed          405  method_not_allowed
    ├── RequestTimedOut           408  body_timeout, headers_timeout
    ├── ChatBusy                  409  chat_busy
    ├── ChatExists                409  chat_exists
    ├── ChatHasNoTurns            409  chat_has_no_turns
    ├── ChatMovedOn               409  chat_moved_on
    ├── IdempotencyKeyInUse       409  idempotency_key_in_use    (Retry-After)
    ├── TooManyOldTexts           409  too_many_old_texts
    ├── BodyTooLarge              413  body_too_large
    ├── UnsupportedMediaType      415  unsupported_media_type
    ├── WrongHost                 421  wrong_host
    ├── IdempotencyKeyReused      422  idempotency_key_reused
    ├── OutOfRange                422  out_of_range, branch_too_large
    ├── RateLimited               429  rate_limit_exceeded       (Retry-After when it will fit)
    ├── Overloaded                429  overloaded                (Retry-After)
    ├── HeadersTooLarge           431  headers_too_large
    ├── InternalError             500  internal_error
    ├── UpstreamError             502  upstream_error
    ├── LimitsUnavailable         503  limits_unavailable        (Retry-After)
    ├── ModelHostUnavailable      503  model_host_unavailable    (Retry-After)
    │   └── ModelStarting         503  model_starting            (Retry-After)
    ├── Draining                  503  draining                  (Retry-After)
    ├── StoreUnavailable          503  database_unavailable      (Retry-After)
    ├── DeadlineExceeded          504  deadline_exceeded
    ├── StoreFull                 507  storage_full
    └── HostRefusal               as the model host said it

Messages are ours or the model host's; they never hold what the client sent.
"""

import math
import random
from collections.abc import Sequence
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


class MissingApiKey(ApiError):
    status = 401
    type = "authentication_error"
    code = "missing_api_key"
    default = "This path needs a key: send Authorization: Bearer <key>"
    challenge: ClassVar[str] = "Bearer"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": self.challenge}


class InvalidApiKey(MissingApiKey):
    code = "invalid_api_key"
    default = "This key is not valid"
    challenge = 'Bearer error="invalid_token"'


class PermissionDenied(ApiError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class ScopeMissing(PermissionDenied):
    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This path needs a key with the scope {scope}", extra={"scope": scope})


class InvalidHttp(ApiError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_http"
    default = "What was sent is not an HTTP/1.1 request"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"
    default = "There is nothing at this path"


class ChatNotFound(NotFound):
    code = "chat_not_found"
    default = "There is no such chat"

    def __init__(self) -> None:
        super().__init__(param="chat_id")


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


class ChatExists(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "chat_exists"
    default = "There is a chat with this chat_id already"

    def __init__(self) -> None:
        super().__init__(param="chat_id")


class ChatHasNoTurns(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "chat_has_no_turns"
    default = "This chat has no question yet that could be asked again"


class ChatMovedOn(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "chat_moved_on"
    default = (
        "The chat has gone on since: its last turn is another one than this request means. With an "
        "Idempotency-Key, send a new one"
    )


class IdempotencyKeyInUse(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "idempotency_key_in_use"
    default = "The request of this Idempotency-Key is still being answered; try again later"


class BodyTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class UnsupportedMediaType(ApiError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"
    default = "Send application/json, not compressed"


class IdempotencyKeyReused(ApiError):
    status = 422
    type = "invalid_request_error"
    code = "idempotency_key_reused"
    default = "This Idempotency-Key came with another request before; send a new key"

    def __init__(self) -> None:
        super().__init__(param="Idempotency-Key")


class HeadersTooLarge(ApiError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request line and the headers are larger than {limit} bytes",
            extra={"limit": limit},
        )


class Overloaded(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    default = "Too many requests are being answered; try again later"


class OutOfRange(ApiError):
    """Right in form, but not for what there is."""

    status = 422
    type = "invalid_request_error"
    code = "out_of_range"


class TooManyOldTexts(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "too_many_old_texts"


class WrongHost(ApiError):
    status = 421
    type = "invalid_request_error"
    code = "wrong_host"


class RateLimited(ApiError):
    """A limit of the caller's key or tenant. `retry_after_s` is exact, then it fits, but for
    `max_concurrent`, where it is a guess.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self,
        limit_name: str,
        scope: str,
        limit: int,
        used: int,
        requested: int,
        retry_after_s: float | None,
        rate_headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        left = max(0, limit - used)
        what = limit_name.replace("_", " ")
        text = f"The {scope}'s limit of {limit} {what} leaves {left}, and this asks for {requested}"
        if retry_after_s is None:
            text += ", which is more than the limit"
        about = {"limit_name": limit_name, "scope": scope, "limit": limit, "remaining": left}
        super().__init__(text, retry_after_s=retry_after_s, extra=about | {"requested": requested})
        self.limit_name = limit_name
        self.rate_headers = rate_headers

    @property
    def error_type(self) -> str:
        return "tokens" if "tokens" in self.limit_name else "requests"

    def headers(self) -> dict[str, str]:
        own = {name.decode(): value.decode() for name, value in self.rate_headers}
        if self.retry_after_s is None:
            # Clients of OpenAI would come again with what can never fit.
            return own | {"x-should-retry": "false"}
        milliseconds = math.ceil(self.retry_after_s * 1000)
        seconds = str(math.ceil(milliseconds / 1000))
        return own | {"Retry-After": seconds, "retry-after-ms": str(milliseconds)}


class LimitsUnavailable(ApiError):
    status = 503
    type = "unavailable_error"
    code = "limits_unavailable"
    default = "The store of limits does not answer; try again later"


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


class ModelStarting(ModelHostUnavailable):
    """Of a model that may be without a host while nobody asks for it."""

    code = "model_starting"

    def __init__(self, expected_s: float) -> None:
        seconds = math.ceil(expected_s)
        super().__init__(
            f"The model has no host at the moment; one is expected in about {seconds} s",
            retry_after_s=expected_s,
            extra={"expected_wait_s": seconds},
        )


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
