"""The way to the model host: the only package that knows httpx and the transport beneath it."""

from api.upstream.client import ModelHost, UpstreamReply, UpstreamStream
from api.upstream.events import UpstreamEvents, stream_error
from api.upstream.transport import Transport, make_transport

__all__ = [
    "ModelHost",
    "Transport",
    "UpstreamEvents",
    "UpstreamReply",
    "UpstreamStream",
    "make_transport",
    "stream_error",
]
