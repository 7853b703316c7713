"""The way to the model host: the only package that knows httpx and the transport beneath it."""

from api.upstream.client import ModelHost, UpstreamReply, UpstreamStream
from api.upstream.transport import make_transport

__all__ = ["ModelHost", "UpstreamReply", "UpstreamStream", "make_transport"]
