"""Odd servers, damaged remains: the file comes, or nothing takes its name."""
import http.server
import json
import os
import threading

import pytest
from test_data import Server, address, half

from cosmoflow.fetch import fetch_file

NAME, BODY = "/x.bin", bytes(range(256)) * 80
SIZE, HALF = len(BODY), len(BODY) // 2
TAG = {"ETag": '"1"'}


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.bodies, httpd.asked, httpd.script = {NAME: BODY}, [], {}
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def get(httpd, tmp_path, answers=(), tries=4):
    "Asks for the file. The server gives these answers first."
    httpd.script = {NAME: list(answers)}
    path = tmp_path / "x.bin"
    assert fetch_file(address(httpd) + NAME, path, lambda part: None, tries, wait=0)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"], "no remains"
    return path.read_bytes(), [headers.get("Range") for _, headers in httpd.asked]


def part(first, last, whole, **headers):
    "These bytes, and what a server says about them."
    told = TAG | {"Content-Range": f"bytes {first}-{last}/{whole}"} | headers
    return 206, told, BODY[first:last + 1]


ODD = {  # what the server answers before it answers well -> what we ask each time
    "a length that is no number": (
        [(200, {"Content-Length": "abc"}, BODY)], [None, None]),
    "a negative length": ([(200, {"Content-Length": "-5"}, BODY)], [None, None]),
    "the beginning, unasked": ([part(0, 99, SIZE)], [None, "bytes=100-"]),
    "the middle, unasked": ([part(50, 99, SIZE)], [None, None]),
    "a half that ends early": (
        [half(BODY), part(HALF, SIZE - 10, SIZE)],
        [None, f"bytes={HALF}-", f"bytes={SIZE - 9}-"]),
    "a half of a file of unknown size": (
        [half(BODY), part(HALF, SIZE - 1, "*")], [None, f"bytes={HALF}-"]),
    "a half that ends early, of a file of unknown size": (
        [half(BODY), part(HALF, SIZE - 10, "*")],
        [None, f"bytes={HALF}-", f"bytes={SIZE - 9}-"]),
    "chunks that break off": (
        [(200, TAG | {"Transfer-Encoding": "chunked"}, b"1000\r\n" + BODY[:100])],
        [None, None]),
    "odd times to wait": (
        [(503, {"Retry-After": after}, b"") for after in ("-3", "", "1.5")],
        4 * [None]),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_answer_does_not_harm_the_file(server, tmp_path, kind):
    answers, ranges = ODD[kind]
    assert get(server, tmp_path, answers) == (BODY, ranges)


def test_a_redirect_may_be_relative(server, tmp_path):
    server.bodies = {"/y.bin": BODY}
    assert get(server, tmp_path, [(302, {"Location": "y.bin"}, b"")])[0] == BODY


@pytest.mark.parametrize("where", [
    NAME,                  # round and round
    None,                  # nowhere
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
])
def test_a_redirect_that_leads_astray_is_refused_by_address(server, tmp_path, where):
    answer = 302, {"Location": where} if where else {}, b""
    with pytest.raises(PermissionError, match=f"^{address(server)}{NAME}: the server"):
        get(server, tmp_path, 12 * [answer])
    assert not list(tmp_path.iterdir())


def note(**more): return json.dumps({"url": "{url}", "size": SIZE} | more)


NOTES = {  # what stands beside an unfinished file -> what is asked
    "nothing": ("", None),
    "no object": ("null", None),
    "a list": ("[]", None),
    "other fields": ('{"url": 1, "surprise": 2}', None),
    "another address": (note(url="https://other.org", etag='"1"'), None),
    "no version": (note(), None),
    "a smaller size": (note(size=9, etag='"1"'), None),
    "a size that is text": (note(size=str(SIZE), etag='"1"'), None),
    "a size that is a list": (note(size=[SIZE], etag='"1"'), None),
    "a tag that is a list": (note(etag=['"1"']), None),
    "a tag of two lines": (note(etag='"1"\n"2"'), None),
    "a tag that no header can hold": (note(etag='"\u2603"'), None),
    "another version": (note(etag='"0"'), f"bytes={HALF}-"),
    "all": (note(etag='"1"'), f"bytes={HALF}-"),
}


@pytest.mark.parametrize("kind", NOTES)
def test_what_is_left_of_an_earlier_try_is_used_only_if_its_note_says_what_it_is(
        server, tmp_path, kind):
    text, asked = NOTES[kind]
    (tmp_path / "x.bin.part").write_bytes(BODY[:HALF])
    beside = tmp_path / "x.bin.part.json"
    beside.write_text(text.replace("{url}", address(server) + NAME), encoding="utf-8")
    body, ranges = get(server, tmp_path)
    assert body == BODY and ranges[0] == asked


@pytest.mark.parametrize("there", ("nothing", "a folder", "an old file"))
def test_a_link_stays_a_link_to_what_comes(server, tmp_path, there):
    "As to a larger disk. A download that broke goes on there."
    store, link = tmp_path / "store" / "0f3a", tmp_path / "x.bin"
    if there != "nothing": store.parent.mkdir()
    if there == "an old file": store.write_bytes(b"old")
    link.symlink_to("store/0f3a")
    url, check = address(server) + NAME, lambda part: None
    fetch = lambda tries: fetch_file(url, link, check, tries, wait=0)
    server.script = {NAME: [half(BODY)]}
    with pytest.raises(ConnectionError, match="0f3a.part keeps what has come"):
        fetch(1)
    assert fetch(1) and link.is_symlink() and store.read_bytes() == BODY
    assert sorted(os.listdir(tmp_path)) == ["store", "x.bin"]
    assert os.listdir(store.parent) == ["0f3a"]
