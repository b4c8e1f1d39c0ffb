"""Odd servers, damaged remains: the file comes, or nothing takes its name."""
import errno
import http.client
import http.server
import io
import json
import math
import os
import ssl
import threading
from itertools import pairwise

import numpy as np
import pytest
from test_data import MAPS, Server, address, asked, half, named, npy

from cosmoflow.data import download
from cosmoflow.fetch import fetch_file

NAME, BODY = "/x.bin", bytes(range(256)) * 80
SIZE, HALF = len(BODY), len(BODY) // 2
TAG = {"ETag": '"1"'}


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.bodies, httpd.asked, httpd.script = {NAME: BODY}, [], {}
    httpd.handle_error = lambda *_: None  # we hang up on purpose
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


LINE = {  # where a line can break
    "before an answer": (http.client.HTTPConnection, "getresponse"),
    "in an answer": (http.client.HTTPResponse, "read"),
}


@pytest.mark.parametrize("times", (1, 2))
@pytest.mark.parametrize("code", (errno.EHOSTUNREACH, errno.ECONNRESET, errno.ENETDOWN))
@pytest.mark.parametrize("where", LINE)
def test_a_line_that_breaks_is_tried_again_and_then_named(
        server, tmp_path, monkeypatch, where, code, times):
    kind, name = LINE[where]
    works, broken = getattr(kind, name), times * [OSError(code, os.strerror(code))]

    def breaks(self, *args):
        if broken: raise broken.pop()
        return works(self, *args)

    monkeypatch.setattr(kind, name, breaks)
    if times == 1:
        assert get(server, tmp_path, tries=2)[0] == BODY
        return
    message = f"^{address(server)}{NAME}: .*{os.strerror(code)}.*; run the same command"
    with pytest.raises(ConnectionError, match=message):
        get(server, tmp_path, tries=2)
    assert not broken and not list(tmp_path.iterdir())


def archive(maps):
    np.savez(file := io.BytesIO(), maps=maps)
    return file.getvalue()


KINDS = {  # what a server can have in the place of maps
    "whole numbers": (lambda: npy(np.ones((60, 8, 8), np.int32)),
                      "expected real numbers, found int32"),
    "another shape": (lambda: npy(np.ones((15, 4, 5), np.float32)),
                      r"shape .n, H, H., found \(15, 4, 5\)"),
    "objects": (lambda: npy(np.full((60, 8, 8), None)), "real numbers, found object"),
    "an archive": (lambda: archive(np.ones((60, 8, 8))), "an archive"),
}


@pytest.mark.parametrize("more", (0, 1 << 32))
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused_by_its_first_bytes_and_at_once(
        server, tmp_path, kind, more):
    "Neither the rest is waited for, though gigabytes are announced, nor another try."
    make, message = KINDS[kind]
    body = make()
    server.script = {MAPS: [(200, {"Content-Length": len(body) + more}, body)]}
    message = f"^{address(server)}{MAPS}: .*{message}.*; another try would bring the"
    with pytest.raises(ValueError, match=message):
        download("Astrid", "LH", tmp_path / "CMD", base=address(server), wait=0)
    assert asked(server) == [None] and named(tmp_path) == []


@pytest.mark.parametrize("wrong", (
    {"wait": -1}, {"wait": math.nan}, {"wait": math.inf}, {"wait": "2"}, {"tries": 0}))
@pytest.mark.parametrize("fetch", (
    lambda root, **how: fetch_file("http://127.0.0.1:9/x", root / "x", print, **how),
    lambda root, **how: download(
        "Astrid", "LH", root / "CMD", base="http://127.0.0.1:9", **how)))
def test_tries_and_pauses_that_cannot_be_are_refused_before_anything_is_asked(
        tmp_path, fetch, wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}={value!r}: expected .* or more"):
        fetch(tmp_path, **{"tries": 2, "wait": 0} | wrong)
    assert not list(tmp_path.iterdir())


def test_a_proxy_that_is_named_after_the_import_is_used(server, tmp_path, monkeypatch):
    "As in a notebook, by os.environ."
    for name in ("no_proxy", "NO_PROXY"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", address(server))
    url = "http://cmd.invalid/x.bin"
    server.bodies = {url: BODY}
    assert fetch_file(url, tmp_path / "x.bin", lambda part: None, tries=1, wait=0)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_a_server_that_is_not_trusted_is_said_once_and_what_to_do(
        tmp_path, monkeypatch):
    "On a Mac, Python from python.org knows no certificates until you install them."
    asked = []

    def connect(self):
        asked.append(self.host)
        raise ssl.SSLCertVerificationError(1, "unable to get local issuer certificate")

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    url = "https://cmd.org/x.bin"
    message = f"^{url}: .*local issuer certificate.*export SSL_CERT_FILE="
    with pytest.raises(PermissionError, match=message):
        fetch_file(url, tmp_path / "x.bin", lambda part: None, tries=4, wait=0)
    assert asked == ["cmd.org"] and not list(tmp_path.iterdir())


def test_attempts_are_counted_since_something_new_has_come(server, tmp_path):
    "On a line that breaks ten times, two attempts in a row are enough."
    cuts = range(0, SIZE, SIZE // 10)
    first = 200, TAG | {"Content-Length": SIZE}, BODY[:cuts[1]]
    breaks = [first, *(part(a, b - 1, SIZE) for a, b in pairwise(cuts[1:]))]
    body, ranges = get(server, tmp_path, breaks, tries=2)
    assert body == BODY and ranges == [None, *(f"bytes={a}-" for a in cuts[1:])]
    server.asked.clear()
    again = [first, (503, {}, b""), (200, *first[1:]), *4 * [(503, {}, b"")]]
    with pytest.raises(ConnectionError, match="keeps what has come"):
        get(server, tmp_path / "other", again, tries=3)
    assert len(server.asked) == 3, "what came a second time is nothing new"


@pytest.mark.parametrize("url", ("www.cmd.org/x", "file:///etc/hosts", "ftp://cmd.org/x"))
def test_what_is_no_address_is_refused_at_once(url, tmp_path):
    with pytest.raises(ValueError, match=f"^'{url}': expected an address with https://"):
        fetch_file(url, tmp_path / "x", print, tries=3, wait=0)
    assert not list(tmp_path.iterdir())
