"""Everything the engine can raise or report, as values that hold no tensor and no traceback.

    EngineError
    ├── InvalidParameter      a sampling value is out of range        (the caller's fault)
    ├── PromptTooLong         prompt + new tokens pass the limit      (the caller's fault)
    ├── DuplicateRequestId    the id is alive in the engine           (the caller's fault)
    ├── Overloaded            the queue is full; says when to retry
    ├── Draining              no new work is taken any more
    ├── EngineDead            the engine loop has died
    ├── StepFailed            the step that this request was part of failed
    ├── ModelLoadError        the weights cannot be found or read
    └── UnsupportedModel      the family cannot be served right

Used on every thread; each message is one line that may be shown to a user.
"""


class EngineError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParameter(EngineError):
    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLong(EngineError):
    """`limit` is what prompt and new tokens may be together."""

    def __init__(self, num_tokens: int, max_tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {num_tokens} tokens and {max_tokens} new ones were asked for,"
            f" but both together may be at most {limit}"
        )
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens
        self.limit = limit


class DuplicateRequestId(EngineError):
    def __init__(self, request_id: str) -> None:
        super().__init__("a request with this id is already being served")
        self.request_id = request_id


class Overloaded(EngineError):
    def __init__(self, retry_after_s: float, message: str = "the queue is full") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(EngineError):
    def __init__(self, message: str = "the engine is draining and takes no new work") -> None:
        super().__init__(message)


class EngineDead(EngineError):
    def __init__(self, message: str = "the engine has died") -> None:
        super().__init__(message)


class StepFailed(EngineError):
    def __init__(self, message: str = "the step that computed this request failed") -> None:
        super().__init__(message)


class ModelLoadError(EngineError):
    pass


class UnsupportedModel(EngineError):
    pass


def first_line(error: BaseException) -> str:
    """Of what others say, which may be pages or nothing at all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
