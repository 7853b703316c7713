"""The page as a browser gets it: types, caching, headers, size. What it does is in tests/page."""

import gzip
import re

import pytest

from api.routes.page import FOLDER
from tests.api.conftest import Api

pytestmark = pytest.mark.anyio
MOST_BYTES = 200_000


async def test_browsers_and_curl_get_the_page_and_programs_the_index(api: Api) -> None:
    for accept in ("text/html,application/xhtml+xml,*/*;q=0.8", "*/*"):
        page = await api.client.get("/", headers={"Accept": accept})
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert '<div id="app">' in page.text
    index = await api.client.get("/", headers={"Accept": "application/json"})
    assert index.json()["name"] == "qna API server"
    assert "Accept" in index.headers["vary"]
    head = await api.client.head("/")
    assert (head.status_code, head.content) == (200, b"")


async def test_every_file_that_the_page_names_is_there(api: Api) -> None:
    page = (await api.client.get("/")).text
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    assert len(names) == 4
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for name in names:
        file = await api.client.get(f"/{name}")
        assert file.status_code == 200
        assert file.headers["content-type"].startswith(kinds[name[name.rindex(".") :]])
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert re.search(r"-[A-Z0-9]{8}\.", name)


async def test_the_page_is_asked_for_every_time_and_sent_once(api: Api) -> None:
    first = await api.client.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = await api.client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await api.client.get("/", headers={"If-None-Match": 'W/"other"'})
    assert other.status_code == 200


async def test_files_are_packed_for_who_can_unpack_them(api: Api) -> None:
    plain = await api.client.get("/", headers={"Accept-Encoding": "identity"})
    packed = await api.client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert "Accept-Encoding" in packed.headers["vary"]


async def test_nothing_but_the_pages_own_files_may_run_or_load(api: Api) -> None:
    for path in ["/", *(f"/page/{file.name}" for file in (FOLDER / "assets").iterdir())]:
        headers = (await api.client.get(path)).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["style-src"] == "'self'"
        assert policy["img-src"] == "'self' data:"
        assert policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "name",
    ["index.html", "nothing.js", "..%2Findex.html", "..%2F..%2Fapp.py", "%2Fetc%2Fpasswd", ""],
)
async def test_no_other_file_is_given(api: Api, name: str) -> None:
    answer = await api.client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_is_small_and_has_no_script_of_its_own_in_the_html() -> None:
    files = [FOLDER / "index.html", *(FOLDER / "assets").iterdir()]
    packed = {file.name: len(gzip.compress(file.read_bytes())) for file in files}
    assert sum(packed.values()) <= MOST_BYTES, packed
    html = (FOLDER / "index.html").read_text()
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)
    assert not re.findall(r"(?:src|href)=\"(?:[a-z]+:)?//", html)


def test_no_file_of_the_page_names_a_foreign_address_to_load() -> None:
    """Addresses in it are names of XML's and links in texts, never something that is fetched."""
    known = r"http://www\.w3\.org/|https://(?:github\.com|www\.npmjs\.com)/"
    for file in (FOLDER / "assets").iterdir():
        if file.suffix in (".js", ".css", ".svg"):
            text = file.read_text()
            assert not re.findall(r"(?:url\(|import\(?|@import) *[\"']?(?:https?:)?//", text)
            foreign = re.findall(r"https?://[\w.-]+/", text)
            assert not [one for one in foreign if not re.match(known, one)], file.name
