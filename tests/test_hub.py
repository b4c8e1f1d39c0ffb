"""Models come by name, from the Hub and from a release: small servers stand in."""
import base64
import functools
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
import torch
from conftest import ROOT, full_disk
from test_data import Server, address, half

from cosmoflow import CosmoFlow, cli
from cosmoflow import model as models
from cosmoflow import releases
from cosmoflow.model import find_model
from cosmoflow.releases import fetch_weights, released, released_folder


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
PUSH_TWO = MAKE + """
make(0).push_to_hub("user/model", token="secret", commit_message="first",
                    model_card_kwargs={"template_path": "card.md"})
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
    hub(PUSH_TWO)
    first, second = Hub.commits
    sent = Hub.commits[first].keys() - {".gitattributes"}
    assert sent == {"README.md", "config.json", "model.safetensors"}
    assert b"# Ours" in Hub.commits[first]["README.md"]
    tokens = {token for method, path, token in Hub.asked if "/commit/" in path}
    assert tokens == {"Bearer secret"}
    Hub.branches["v1"] = first
    assert Hub.branches["main"] == second
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


def release_script():
    "The script that writes the table, as a module."
    path = ROOT / "nbs/site/_release.py"
    spec = importlib.util.spec_from_file_location("_release", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_says_what_the_files_are_and_where(tmp_path):
    "And a tag's files are gathered under the names that are asked for."
    script = release_script()
    for name, entry in released().items():
        if not (script.FOLDERS / name).is_dir(): continue  # of an older version
        assert script.describe(script.FOLDERS / name) == entry["files"]
        script.gather(entry["tag"], tmp_path / "assets")
        there = {path.name for path in (tmp_path / "assets").iterdir()}
        assert there >= {f"{name}.{file}" for file in entry["files"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    repository = project["project"]["urls"]["Repository"]
    assert releases.RELEASES == f"{repository}/releases/download"


MINE, URL = "mine", "/v9/mine.{}"


@pytest.fixture
def release(tmp_path, monkeypatch):
    "A server with the files of one release, and a package that knows them."
    source = tmp_path / "source"
    norm = models.Normalizer(11.0, 0.5, 1e8)
    torch.manual_seed(0)
    CosmoFlow.from_preset("tiny", norm).save_pretrained(source)
    files = release_script().describe(source)
    table = {MINE: {"about": "Ours.", "tag": "v9", "files": files}}
    for module in (releases, models):  # the model has the name, too
        monkeypatch.setattr(module, "released", lambda: table)
    monkeypatch.setenv("COSMOFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.bodies = {URL.format(p.name): p.read_bytes() for p in source.iterdir()}
    httpd.asked, httpd.script = [], {}
    Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def get(httpd, **more):
    return fetch_weights(MINE, **{"base": address(httpd), "wait": 0} | more)


CONFIG, WEIGHTS = (URL.format(name) for name in ("config.json", "model.safetensors"))


def test_a_release_s_model_is_fetched_once_and_loads_by_name(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="fetch mine"): find_model(MINE)
    assert not release.asked, "nothing comes unasked"
    release.script = {WEIGHTS: [half(release.bodies[WEIGHTS])]}  # and goes on
    folder = get(release)
    assert folder == tmp_path / "cache/v9/mine" == find_model(MINE)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors"]
    asked = [(path, headers.get("Range")) for path, headers in release.asked]
    middle = len(release.bodies[WEIGHTS]) // 2
    assert asked == [(CONFIG, None), (WEIGHTS, None), (WEIGHTS, f"bytes={middle}-")]
    get(release)
    assert len(release.asked) == 3, "what is here is not asked for again"
    loaded = CosmoFlow.from_pretrained(MINE, "cpu").state_dict()
    made = CosmoFlow.from_pretrained(tmp_path / "source", "cpu").state_dict()
    assert all(torch.equal(loaded[name], made[name]) for name in made)


def test_a_name_means_the_same_whatever_lies_here(release, tmp_path):
    "A folder of that name is meant by a path; a cache of one's own is asked, too."
    shutil.copytree("source", MINE)
    with pytest.raises(FileNotFoundError, match="not on this machine"): find_model(MINE)
    assert find_model("./mine") == find_model(tmp_path / MINE).relative_to(tmp_path)
    with pytest.raises(FileNotFoundError, match="fetch mine --cache 'my cache'"):
        CosmoFlow.from_pretrained(MINE, cache_dir="my cache")
    get(release, cache_dir="my cache")
    CosmoFlow.from_pretrained(MINE, "cpu", cache_dir="my cache")


@pytest.mark.parametrize("variables, where", [
    ({}, "home/.cache/cosmoflow"),
    ({"XDG_CACHE_HOME": "xdg"}, "xdg/cosmoflow"),
    ({"XDG_CACHE_HOME": "xdg", "COSMOFLOW_CACHE": "~/own"}, "home/own"),
])
def test_where_the_cache_is(release, monkeypatch, variables, where):
    for name in ("XDG_CACHE_HOME", "COSMOFLOW_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setenv("USERPROFILE", "home")
    for name, value in variables.items(): monkeypatch.setenv(name, value)
    assert released_folder(MINE).as_posix() == f"{where}/v9/mine"


DAMAGED = {  # a file in the cache, or an answer
    "cut": lambda body: body[:-1],
    "flipped": lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:],
    "longer": lambda body: body + b"!",
    "empty": lambda body: b"",
    "a login page": lambda body: b"<html>Please log in</html>",
}


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_and_mended(release, file, kind):
    path = get(release) / file.removeprefix("/v9/mine.")
    path.write_bytes(DAMAGED[kind](path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path}: damaged: .*mends it: .*fetch mine"):
        CosmoFlow.from_pretrained(MINE)
    release.asked.clear()
    get(release)
    assert [asked for asked, _ in release.asked] == [file]
    CosmoFlow.from_pretrained(MINE, "cpu")


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_not_the_release_s_file_never_takes_its_name(release, kind):
    answer = 200, {}, DAMAGED[kind](release.bodies[WEIGHTS])
    release.script = {WEIGHTS: [answer, answer]}
    with pytest.raises(ConnectionError, match="mine.model.safetensors: .*damaged: "):
        get(release, tries=2)
    folder = released_folder(MINE)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    with pytest.raises(FileNotFoundError, match="fetch mine"): find_model(MINE)
    assert get(release) == find_model(MINE)  # what came is not asked for again
    assert [path for path, _ in release.asked].count(CONFIG) == 1


def gone(httpd):
    httpd.shutdown()
    httpd.server_close()


TROUBLES = {
    "offline": (gone, ConnectionError, "run the same command again later"),
    "not there": (lambda s: s.bodies.clear(), FileNotFoundError, r"no such file .404"),
    "refused": (lambda s: s.script.update({CONFIG: [(403, {}, b"")]}),
                PermissionError, "the server refuses .403"),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_trouble_on_the_way_is_one_line_that_names_the_address(release, kind):
    make, error, message = TROUBLES[kind]
    make(release)
    with pytest.raises(error, match=f"^{address(release)}{CONFIG}: .*{message}"):
        get(release, tries=1)
    assert not list(released_folder(MINE).iterdir())


@pytest.mark.parametrize("wrong, message", [
    ({"name": "mini"}, "'mini': no release has a model of this name; expected mine"),
    ({"base": "ftp://x"}, "expected an address with https://"),
    ({"tries": 0}, "1 or more"),
    ({"wait": -1}, "wait=-1: expected 0 or more"),
])
def test_what_cannot_be_fetched_is_refused_before_anything_is_made(
        release, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        fetch_weights(**{"name": MINE, "base": address(release)} | wrong)
    assert not release.asked and not (tmp_path / "cache").exists()


def test_a_cache_that_nobody_can_write_to(release, tmp_path):
    "Whole, it is read; else it is said at once, and a full disk keeps what came."
    (tmp_path / "cache").touch()
    with pytest.raises(NotADirectoryError, match="choose another"): get(release)
    assert not release.asked
    (tmp_path / "cache").unlink()
    part = "model.safetensors.part: it could not be written"
    with full_disk(20_000), pytest.raises(OSError, match=part): get(release)
    folder = get(release)
    assert release.asked[-1][1]["Range"] == "bytes=20000-"
    for path in (*folder.iterdir(), folder): path.chmod(0o555)
    assert get(release) == folder == find_model(MINE)


def test_a_second_fetch_waits_for_the_first(release, monkeypatch):
    asks, goes_on = Event(), Event()
    send = BaseHTTPRequestHandler.send_response_only

    def held_back(self, *args):
        asks.set()
        goes_on.wait(10)
        send(self, *args)

    monkeypatch.setattr(Server, "send_response_only", held_back)
    first = Thread(target=get, args=(release,))
    first.start()
    try:
        assert asks.wait(60)
        with pytest.raises(BlockingIOError, match="another download is at work"):
            get(release)
    finally:
        goes_on.set()
        first.join()
    assert len(release.asked) == 2 and find_model(MINE)


def test_the_command_fetches_what_other_commands_name(release, monkeypatch, capsys):
    fetch = functools.partial(fetch_weights, base=address(release), wait=0)
    monkeypatch.setattr(releases, "fetch_weights", fetch)
    line = "evaluate --model mine --sims 0:10"
    with pytest.raises(SystemExit): cli.main(shlex.split(line))
    told = capsys.readouterr().err
    assert told.endswith("fetches 1 MB from a release: cosmoflow fetch mine\n")
    cli.main(shlex.split(told.partition("release: cosmoflow ")[2]))
    assert "mine is in" in capsys.readouterr().out
    assert cli._load_model("mine").config["width"] == 8


def test_a_folder_in_a_file_s_place_is_said_before_anything_is_fetched(
        tmp_path, monkeypatch):
    def asked(*_): raise AssertionError("asked")
    monkeypatch.setattr("cosmoflow.releases.fetch_file", asked)
    for file in released()["mini-128"]["files"]:
        cache = tmp_path / file
        place = released_folder("mini-128", cache) / file
        place.mkdir(parents=True)
        with pytest.raises(IsADirectoryError, match=f"{file}: expected a file, but it"):
            fetch_weights("mini-128", cache)
        assert os.listdir(place.parent) == [file]


def test_an_address_may_end_in_a_slash(release):
    release.bodies = {f"/all{path}": body for path, body in release.bodies.items()}
    get(release, base=f"{address(release)}/all/")
    assert [path for path, _ in release.asked] == [f"/all{CONFIG}", f"/all{WEIGHTS}"]
