"""The way to the model hosts: the only package that knows httpx and the transport beneath it."""

from api.upstream.catalogue import Catalogue
from api.upstream.client import ANY, ModelHost, Wanted
from api.upstream.events import UpstreamEvents, told_error
from api.upstream.peers import PeerLoad
from api.upstream.pool import Load, Pool
from api.upstream.reply import SERVED_BY, UpstreamReply, UpstreamStream
from api.upstream.transport import Transport, make_transport

__all__ = [
    "ANY",
    "SERVED_BY",
    "Catalogue",
    "Load",
    "ModelHost",
    "PeerLoad",
    "Pool",
    "Transport",
    "UpstreamEvents",
    "UpstreamReply",
    "UpstreamStream",
    "Wanted",
    "make_transport",
    "told_error",
]
