"""Models go to the Hub and come back by name, over HTTP: a small server on this machine stands in for huggingface.co."""
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
    "As much of the Hub as takes a commit, and gives the files of a branch, tag or commit."
    commits: dict = {}    # name of a commit -> {name of a file: bytes}
    branches: dict = {}   # branch or tag -> name of its commit
    asked: list = []      # method, path and token of each request
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, body=b"", status=200, **headers):
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": len(body)} | headers).items(): self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def read(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""): return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16): body += self.rfile.read(size + 2)[:size]
        self.rfile.readline()
        return body

    def files(self, revision):
        commit = self.branches.get(revision, revision)
        return commit, self.commits.get(commit)

    def missing(self): self.answer(b"", 404, X_Error_Code="RevisionNotFound" if "user/model" in self.path else "RepoNotFound")

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append((self.command, path, self.headers.get("Authorization")))
        kind, _, rest = path.partition("user/model/")
        what, _, rest = rest.partition("/")
        if kind == "/api/models/" and what == "revision":
            commit, files = self.files(rest)
            if files is None: return self.missing()
            return self.answer({"id": "user/model", "modelId": "user/model", "sha": commit, "private": False, "tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": name} for name in files]})
        if kind == "/api/models/" and what == "tree":
            _, files = self.files(rest.split("/")[0])
            if files is None: return self.missing()
            return self.answer([{"type": "file", "path": name, "size": len(text), "oid": hashlib.sha1(text).hexdigest()} for name, text in files.items()])
        if kind == "/" and what == "resolve":
            revision, _, name = rest.partition("/")
            commit, files = self.files(revision)
            if files is None or name not in files: return self.missing()
            return self.answer(files[name], X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
        self.missing()

    do_HEAD = do_GET

    def do_POST(self):
        path, body = self.path.split("?")[0], self.read()
        self.asked.append((self.command, path, self.headers.get("Authorization")))
        here = f"http://127.0.0.1:{self.server.server_address[1]}/user/model"
        if path == "/api/repos/create": return self.answer({"url": here, "name": "user/model", "id": "1"})
        if path == "/api/validate-yaml": return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            named = [file["path"] for file in json.loads(body)["files"]]
            return self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]})
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            new = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            branch = path.rpartition("/")[2]
            name = hashlib.sha1(body).hexdigest()
            self.commits[name] = self.commits.get(self.branches.get(branch), {}) | new
            self.branches[branch] = name
            return self.answer({"success": True, "commitUrl": f"{here}/commit/{name}", "commitOid": name, "hookOutput": ""})
        self.missing()


@pytest.fixture
def hub(tmp_path):
    "The server, and a way to run code that takes it for the Hub."
    Hub.commits, Hub.branches, Hub.asked = {}, {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and not key.lower().endswith("_proxy")}

    def run(code, **more):
        done = subprocess.run([sys.executable, "-c", "from cosmoflow import CosmoFlow\n" + code], cwd=tmp_path, env=kept | settings | more, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    yield run
    server.shutdown()
    server.server_close()


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    "Pushed with its card, loaded by name, at a tag, and offline from the cache; only the two files come."
    (tmp_path / "card.md").write_text("---\nlibrary_name: cosmoflow\nlicense: mit\n---\n# Ours\n", encoding="utf-8")
    made = "import torch\nfrom cosmoflow.data import Normalizer\ndef make(seed):\n    torch.manual_seed(seed)\n    return CosmoFlow.from_preset('tiny', Normalizer(11.0, 0.5, 1e8)).eval()\n"
    hub(made + "make(0).push_to_hub('user/model', token='secret', commit_message='first', model_card_kwargs={'template_path': 'card.md'})")
    (first,) = Hub.commits
    assert {"README.md", "config.json", "model.safetensors"} == Hub.commits[first].keys() - {".gitattributes"}
    assert b"# Ours" in Hub.commits[first]["README.md"]
    assert all(token == "Bearer secret" for method, path, token in Hub.asked if "/commit/" in path)
    Hub.branches["v1"] = first
    hub(made + "make(1).push_to_hub('user/model', token='secret')")
    assert Hub.branches["main"] != first
    Hub.asked.clear()
    same = made + "def same(a, b): return all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())\n"
    said = hub(same + "for name in ('user/model', 'hub:user/model'): print(same(CosmoFlow.from_pretrained(name, 'cpu'), make(1)))\n"
               f"for revision in ('v1', {first!r}): print(same(CosmoFlow.from_pretrained('user/model', 'cpu', revision=revision), make(0)))")
    assert said.split() == ["True"] * 4
    assert not any("README" in path for _, path, _ in Hub.asked), "only what a model is made of"
    Hub.asked.clear()
    said = hub(same + "print(same(CosmoFlow.from_pretrained('user/model', 'cpu'), make(1)))\n"
               "print(same(CosmoFlow.from_pretrained('user/model', 'cpu', revision='v1'), make(0)))", HF_HUB_OFFLINE="1")
    assert said.split() == ["True"] * 2 and Hub.asked == []


def test_what_the_hub_does_not_have_is_named(hub):
    said = hub("for name, revision in (('user/nothing', None), ('user/model', 'v9')):\n"
               "    try: CosmoFlow.from_pretrained(name, 'cpu', revision=revision)\n"
               "    except FileNotFoundError as e: print(e)")
    assert [line.split(":")[0] for line in said.splitlines()] == ["'user/nothing'", "'user/model'"]
    assert said.count("none came from the Hub") == 2 and "404" in said
