"""`GET /`: the chat page and its files, built from web/ into api/page/.

The files' names hold their hash, so a browser keeps them for good; the page itself it asks for
every time, by its ETag. Nothing here knows a chat: the page is a client like any other, and what
it may do is bounded by the headers below.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.errors import NotFound
from api.routes.health import index

router = APIRouter(tags=["page"])
FOLDER = Path(__file__).resolve().parents[1] / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
# A model's words are shown on this page, so it runs its own files and nothing else, loads nothing
# from elsewhere, and only DOMPurify may turn text into HTML (Trusted Types).
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
FOR_GOOD = "public, max-age=31536000, immutable"
EVERY_TIME = "no-cache"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    packed: bytes | None
    media_type: str
    etag: str

    def answer(self, request: Request, caching: str, vary: str) -> Response:
        headers = HEADERS | {"Cache-Control": caching, "ETag": self.etag, "Vary": vary}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = self.content
        if self.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            body = self.packed
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=self.media_type, headers=headers)


@cache
def files() -> dict[str, File]:
    """Every file of the page by its name: read and packed once."""
    paths = [FOLDER / "index.html", *sorted((FOLDER / "assets").iterdir())]
    return {path.name: _read(path) for path in paths}


def _read(path: Path) -> File:
    content = path.read_bytes()
    packed = gzip.compress(content, mtime=0) if path.suffix != ".woff2" else None
    digest = hashlib.sha256(content).hexdigest()[:20]
    # Weak: packed and plain are the same page in other bytes.
    return File(content, packed, TYPES[path.suffix], f'W/"{digest}"')


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


@router.get(
    "/",
    summary="The chat page; with Accept: application/json, what this is and where to go",
    responses={
        200: {
            "content": {
                "text/html": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
            }
        }
    },
)
async def page(request: Request) -> Response:
    if _wants_json(request):
        answer = index()
        answer.headers["Vary"] = "Accept"
        return answer
    return files()["index.html"].answer(request, EVERY_TIME, "Accept, Accept-Encoding")


@router.head("/", include_in_schema=False)
async def page_head(request: Request) -> Response:
    return await page(request)


@router.get("/page/{name}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None or name == "index.html":
        raise NotFound()
    return file.answer(request, FOR_GOOD, "Accept-Encoding")
