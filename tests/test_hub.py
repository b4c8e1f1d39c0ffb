"""Models go to the Hub and come back by name: a small server stands in for it."""
import base64
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


class Hub(BaseHTTPRequestHandler):
    "As much of the Hub as takes a commit and gives files at a branch, tag or commit."
    commits: dict = {}    # name of a commit -> {name of a file: bytes}
    branches: dict = {}   # branch or tag -> name of its commit
    asked: list = []      # method, path and token of each request
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, body=b"", status=200, **headers):
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def read(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:size]
        self.rfile.readline()
        return body

    def files(self, revision):
        commit = self.branches.get(revision, revision)
        return commit, self.commits.get(commit)

    def missing(self):
        code = "RevisionNotFound" if "user/model" in self.path else "RepoNotFound"
        self.answer(b"", 404, X_Error_Code=code)

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append((self.command, path, self.headers.get("Authorization")))
        kind, _, rest = path.partition("user/model/")
        what, _, rest = rest.partition("/")
        if kind == "/api/models/" and what == "revision":
            commit, files = self.files(rest)
            if files is None: return self.missing()
            siblings = [{"rfilename": name} for name in files]
            return self.answer({
                "id": "user/model", "modelId": "user/model", "sha": commit,
                "private": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": siblings})
        if kind == "/api/models/" and what == "tree":
            _, files = self.files(rest.split("/")[0])
            if files is None: return self.missing()
            return self.answer([
                {"type": "file", "path": name, "size": len(text),
                 "oid": hashlib.sha1(text).hexdigest()}
                for name, text in files.items()])
        if kind == "/" and what == "resolve":
            revision, _, name = rest.partition("/")
            commit, files = self.files(revision)
            if files is None or name not in files: return self.missing()
            digest = hashlib.sha1(files[name]).hexdigest()
            return self.answer(files[name], X_Repo_Commit=commit, ETag=f'"{digest}"')
        self.missing()

    do_HEAD = do_GET

    def do_POST(self):
        path, body = self.path.split("?")[0], self.read()
        self.asked.append((self.command, path, self.headers.get("Authorization")))
        here = f"http://127.0.0.1:{self.server.server_address[1]}/user/model"
        if path == "/api/repos/create":
            return self.answer({"url": here, "name": "user/model", "id": "1"})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            named = [file["path"] for file in json.loads(body)["files"]]
            return self.answer({"files": [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False}
                for name in named]})
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            sent = [line["value"] for line in lines if line["key"] == "file"]
            new = {file["path"]: base64.b64decode(file["content"]) for file in sent}
            branch = path.rpartition("/")[2]
            name = hashlib.sha1(body).hexdigest()
            self.commits[name] = self.commits.get(self.branches.get(branch), {}) | new
            self.branches[branch] = name
            return self.answer({
                "success": True, "commitUrl": f"{here}/commit/{name}",
                "commitOid": name, "hookOutput": ""})
        self.missing()


@pytest.fixture
def hub(tmp_path):
    "The server, and a way to run code that takes it for the Hub."
    Hub.commits, Hub.branches, Hub.asked = {}, {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith("HF_") and not key.lower().endswith("_proxy")}

    def run(code, **more):
        program = [sys.executable, "-c", "from cosmoflow import CosmoFlow\n" + code]
        done = subprocess.run(program, cwd=tmp_path, env=kept | settings | more,
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    yield run
    server.shutdown()
    server.server_close()


MAKE = """
import torch
from cosmoflow.data import Normalizer

def make(seed):
    torch.manual_seed(seed)
    return CosmoFlow.from_preset("tiny", Normalizer(11.0, 0.5, 1e8)).eval()
"""
PUSH_FIRST = MAKE + """
make(0).push_to_hub("user/model", token="secret", commit_message="first",
                    model_card_kwargs={"template_path": "card.md"})
"""
PUSH_SECOND = MAKE + """
make(1).push_to_hub("user/model", token="secret")
"""
COMPARE = MAKE + """
def is_made(seed, name, **options):
    loaded = CosmoFlow.from_pretrained(name, "cpu", **options).state_dict()
    made = make(seed).state_dict()
    print(all(torch.equal(loaded[k], v) for k, v in made.items()))

"""


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    "Pushed with its card, loaded by name, at a tag, and offline: of two files alone."
    card = "---\nlibrary_name: cosmoflow\nlicense: mit\n---\n# Ours\n"
    (tmp_path / "card.md").write_text(card, encoding="utf-8")
    hub(PUSH_FIRST)
    (first,) = Hub.commits
    sent = Hub.commits[first].keys() - {".gitattributes"}
    assert sent == {"README.md", "config.json", "model.safetensors"}
    assert b"# Ours" in Hub.commits[first]["README.md"]
    tokens = {token for method, path, token in Hub.asked if "/commit/" in path}
    assert tokens == {"Bearer secret"}
    Hub.branches["v1"] = first
    hub(PUSH_SECOND)
    assert Hub.branches["main"] != first
    Hub.asked.clear()
    said = hub(f"""{COMPARE}
is_made(1, "user/model")
is_made(1, "hub:user/model")
is_made(0, "user/model", revision="v1")
is_made(0, "user/model", revision={first!r})
""")
    assert said.split() == ["True"] * 4
    assert not any("README" in path for _, path, _ in Hub.asked), "what makes a model"
    Hub.asked.clear()
    said = hub(f"""{COMPARE}
is_made(1, "user/model")
is_made(0, "user/model", revision="v1")
""", HF_HUB_OFFLINE="1")
    assert said.split() == ["True"] * 2 and Hub.asked == []


LOAD_ABSENT = """
for name, revision in (("user/nothing", None), ("user/model", "v9")):
    try: CosmoFlow.from_pretrained(name, "cpu", revision=revision)
    except FileNotFoundError as e: print(e)
"""


def test_what_the_hub_does_not_have_is_named(hub):
    said = hub(LOAD_ABSENT)
    named = [line.split(":")[0] for line in said.splitlines()]
    assert named == ["'user/nothing'", "'user/model'"]
    assert said.count("none came from the Hub") == 2 and "404" in said
