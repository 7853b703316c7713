"""The inference engine: token ids in, token ids out. Knows no HTTP and no text."""

from model.engine.async_engine import AsyncEngine, RequestStream
from model.engine.config import EngineConfig, EngineInfo, EngineStats
from model.engine.errors import (
    Draining,
    DuplicateRequestId,
    EngineDead,
    EngineError,
    InvalidParameter,
    ModelLoadError,
    Overloaded,
    PromptTooLong,
    StepFailed,
    UnsupportedModel,
)
from model.engine.request import FinishReason, RequestOutput, RequestTiming, TokenLogprob
from model.engine.sampling_params import SamplingParams

__all__ = [
    "AsyncEngine",
    "Draining",
    "DuplicateRequestId",
    "EngineConfig",
    "EngineDead",
    "EngineError",
    "EngineInfo",
    "EngineStats",
    "FinishReason",
    "InvalidParameter",
    "ModelLoadError",
    "Overloaded",
    "PromptTooLong",
    "RequestOutput",
    "RequestStream",
    "RequestTiming",
    "SamplingParams",
    "StepFailed",
    "TokenLogprob",
    "UnsupportedModel",
]
