"""CMD files, good and bad: reading, splitting, memory, downloading."""
import http.server
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cosmoflow.core import MapView
from cosmoflow.data import (MapData, Normalizer, augment, batches, download, map_path, open_maps, param_path, split_simulations)


def write_cmd(root, suite="Astrid", set="LH", sims=4, side=16, columns=6, n_maps=None, maps=None):
    "A CMD folder with random positive maps."
    rng = np.random.default_rng(0)
    if maps is None: maps = rng.lognormal(25, 1, (n_maps or 15 * sims, side, side)).astype(np.float32)
    np.save(map_path(root, suite, set), maps)
    np.savetxt(param_path(root, suite, set), rng.uniform(0.1, 1, (sims, columns)))
    return maps


def test_reads_cmd(tmp_path):
    maps = write_cmd(tmp_path)
    data = open_maps("Astrid", "LH", tmp_path)
    assert isinstance(data.maps, np.memmap) and data.params.shape == (4, 6)
    assert data.param_names == ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
    one, params = data[31]
    np.testing.assert_array_equal(one, maps[31])
    np.testing.assert_array_equal(params, data.params[2])
    with pytest.raises(IndexError): data[60]


@pytest.mark.parametrize("table", ["params_LH_Nbody.txt", "params_LH_Nbody_Astrid.txt"])
def test_nbody_tables_go_by_two_names(tmp_path, table):
    write_cmd(tmp_path, "Nbody_Astrid")
    (tmp_path / "params_LH_Nbody_Astrid.txt").rename(tmp_path / table)
    data = open_maps("Nbody_Astrid", "LH", tmp_path)
    assert data.params.shape == (4, 2) and data.param_names == ("Omega_m", "sigma_8")


@pytest.mark.parametrize("n_maps", [525, 435])
def test_1p_with_and_without_repeats(tmp_path, n_maps):
    "Astrid's 1P table: 35 rows, the fiducial in the middle of each five; maps may hold 35 or 29 runs."
    rows = np.tile([0.3, 0.8, 1, 1, 1, 1, 0.049], (35, 1))
    for p in range(7): rows[5 * p : 5 * p + 5, p] *= (0.25, 0.5, 1, 2, 4)
    np.save(map_path(tmp_path, "Astrid", "1P"), np.ones((n_maps, 16, 16), np.float32))
    np.savetxt(param_path(tmp_path, "Astrid", "1P"), rows)
    data = open_maps("Astrid", "1P", tmp_path)
    assert data.n_sims == n_maps // 15
    assert data.param_names[-1] == "Omega_b"
    if n_maps == 435: assert len(np.unique(data.params, axis=0)) == 29 and (data.params[2] == rows[2]).all()


BAD = {
    "missing maps": (lambda root: map_path(root, "Astrid", "LH").unlink(), FileNotFoundError, "no such file"),
    "missing table": (lambda root: param_path(root, "Astrid", "LH").unlink(), FileNotFoundError, "parameter table"),
    "truncated": (lambda root: map_path(root, "Astrid", "LH").write_bytes(map_path(root, "Astrid", "LH").read_bytes()[:5000]), ValueError, "truncated"),
    "empty": (lambda root: map_path(root, "Astrid", "LH").write_bytes(b""), ValueError, "not a .npy"),
    "not npy": (lambda root: map_path(root, "Astrid", "LH").write_text("<html>not found</html>"), ValueError, "not a .npy"),
    "shape": (lambda root: write_cmd(root, maps=np.ones((60, 16, 8), np.float32)), ValueError, r"shape \(n, H, H\)"),
    "dtype": (lambda root: write_cmd(root, maps=np.ones((60, 16, 16))), ValueError, "float32, found float64"),
    "pickle": (lambda root: np.save(map_path(root, "Astrid", "LH"), np.array([{}] * 60)), ValueError, "npy|truncated"),
    "nan": (lambda root: write_cmd(root, maps=np.where(np.arange(60 * 256).reshape(60, 16, 16) == 10_000, np.nan, 1).astype(np.float32)), ValueError, "map 39, pixel"),
    "infinite": (lambda root: write_cmd(root, maps=np.full((60, 16, 16), np.inf, np.float32)), ValueError, "not finite"),
    "negative": (lambda root: write_cmd(root, maps=np.full((60, 16, 16), -1, np.float32)), ValueError, "negative"),
    "rows": (lambda root: write_cmd(root, n_maps=59), ValueError, "59 maps, its table 4 rows"),
    "table of words": (lambda root: param_path(root, "Astrid", "LH").write_text("a b\n"), ValueError, "table of numbers"),
    "one column": (lambda root: write_cmd(root, columns=1), ValueError, "at least the columns"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_named(tmp_path, what):
    write_cmd(tmp_path)
    spoil, error, message = BAD[what]
    spoil(tmp_path)
    with pytest.raises(error, match=message) as caught: open_maps("Astrid", "LH", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_bad_arguments(tmp_path):
    write_cmd(tmp_path)
    with pytest.raises(ValueError, match="suite='Illustris' is unknown"): open_maps("Illustris", "LH", tmp_path)
    with pytest.raises(ValueError, match="set='lh' is unknown"): open_maps("Astrid", "lh", tmp_path)
    with pytest.raises(ValueError, match="root is needed"): open_maps("Astrid", "LH")
    with pytest.raises(ValueError, match="selects none"): open_maps("Astrid", "LH", tmp_path, sims=slice(4, 9))
    with pytest.raises(ValueError, match="contiguous"): open_maps("Astrid", "LH", tmp_path, sims=slice(0, 4, 2))
    with pytest.raises(ValueError, match="divisor"): open_maps("Astrid", "LH", tmp_path, pixels=7)
    with pytest.raises(ValueError, match="at least one"): Normalizer.fit(np.ones((0, 8, 8), np.float32))
    with pytest.raises(ValueError, match="constant"): Normalizer.fit(np.ones((2, 8, 8), np.float32))


def fake(n_sims): return MapData(np.zeros((15 * n_sims, 1, 1), np.float32), np.zeros((n_sims, 2)), ("a", "b"), "PM", "LH", "Mcdm")


@settings(max_examples=100, deadline=None)
@given(n=st.integers(10, 300), seed=st.integers(0, 10**6))
def test_split_is_a_partition_of_simulations(n, seed):
    parts = split_simulations(fake(n), seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(15 * n))
    sims = [set((p // 15).tolist()) for p in parts]
    assert not sims[0] & sims[1] and not sims[0] & sims[2] and not sims[1] & sims[2]
    assert abs(len(parts[0]) / (15 * n) - 0.8) <= 1 / n
    assert all((a == b).all() for a, b in zip(parts, split_simulations(fake(n), seed=seed)))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(10, 60), seed=st.integers(0, 10**6))
def test_parts_hold_their_maps_and_the_parameters_of_each(n, seed):
    maps = np.arange(15 * n * 4, dtype=np.float32).reshape(15 * n, 2, 2)
    params = np.stack([np.arange(n), -np.arange(n)], 1).astype(float)
    data = MapData(maps, params, ("a", "b"), "PM", "LH", "Mcdm")
    parts, numbers = data.split(seed=seed), split_simulations(data, seed=seed)
    simulations = [int(p) for part in parts for p in part.params[:, 0]]
    assert sorted(simulations) == list(range(n))  # each in one part
    for part, which in zip(parts, numbers):
        assert isinstance(part.maps, MapView) and len(part) == 15 * part.n_sims
        np.testing.assert_array_equal(part.maps, maps[which])
        np.testing.assert_array_equal(part.targets, [params[i // 15] for i in which])
        for i in (0, 14, len(part) - 1, -1):
            one, target = part[i]
            assert (one == maps[which[i]]).all() and (target == params[which[i] // 15]).all()
    assert (parts[0].suite, parts[0].set, parts[0].field, parts[0].pixels) == ("PM", "LH", "Mcdm", 2)
    if n >= 20:
        again = parts[0].split((0.5, 0.5, 0.0))  # a part has parts, too
        np.testing.assert_array_equal(again[1].maps, maps[numbers[0]][split_simulations(parts[0], (0.5, 0.5, 0.0))[1]])


def test_a_view_reads_like_the_array_and_refuses_what_is_not_there():
    array = np.random.default_rng(0).random((30, 3, 3))
    view = MapView(array, np.array([5, 28, 1, 1]))
    for key in (2, -1, np.int64(1), slice(1, None), slice(None, None, -2), [3, 0], np.array([[0, 1], [2, 3]]), np.arange(4) > 1, []):
        np.testing.assert_array_equal(view[key], array[[5, 28, 1, 1]][key])
    assert [one[0, 0] for one in view] == [array[i, 0, 0] for i in (5, 28, 1, 1)]
    assert np.asarray(view, dtype=np.float32).dtype == np.float32 and np.array(view).base is not array
    np.testing.assert_array_equal(MapView(array, slice(0, 30, 15)), array[::15])
    with pytest.raises(IndexError): view[4]
    with pytest.raises(IndexError): MapView(array, [30])


@settings(max_examples=50, deadline=None)
@given(tens=st.integers(1, 20), more=st.integers(0, 20), seed=st.integers(0, 10**6))
def test_longer_suite_keeps_the_parts_of_a_shorter_one(tens, more, seed):
    short, long = (split_simulations(fake(10 * n), seed=seed) for n in (tens, tens + more))
    for a, b in zip(short, long): assert set(a.tolist()) <= set(b.tolist())


def test_split_errors():
    with pytest.raises(ValueError, match="sum to 1"): split_simulations(fake(10), (0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match="no simulation of 2 for"): split_simulations(fake(2))
    assert len(split_simulations(fake(10), (0.8, 0.2, 0.0))[2]) == 0


def test_large_file_needs_little_memory(tmp_path):
    "A sparse LH file of CMD's size, opened, checked and iterated in a process that must stay under 1 GiB."
    write_cmd(tmp_path, sims=1000, n_maps=1, side=256)
    np.lib.format.open_memmap(map_path(tmp_path, "Astrid", "LH"), "w+", np.float32, (15_000, 256, 256)).flush()
    code = """
import resource, sys
from cosmoflow.data import batches, open_maps
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)
data = open_maps("Astrid", "LH", sys.argv[1], check=False)
before = used()
train, val, test = data.split()
assert train.maps.shape == (12_000, 256, 256) and test.targets.shape == (1500, 6)
assert used() - before < 0.01
for i in range(0, 12_000, 64): assert not train.maps[i:i + 64].any()
assert used() - before < 0.1
assert len(data) == 15_000 and data[14_999][0].shape == (256, 256)
assert sum(b.sum() for b in batches(data.maps)) == 0
assert sum(data[i][0].sum() for i in range(0, 15_000, 5)) == 0
print(used())
"""
    gib = float(subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout)
    assert gib < 1


def test_normalizer_fits_the_maps_of_a_view():
    maps = np.random.default_rng(0).lognormal(25, 1, (600, 16, 16)).astype(np.float32)
    norm = Normalizer.fit(MapView(maps, slice(550)))
    log = np.log10(maps[:550].astype(float))
    np.testing.assert_allclose([norm.mean, norm.std], [log.mean(), log.std()], rtol=1e-6)


def test_augment_takes_every_symmetry_and_repeats_with_its_generator():
    maps = torch.from_numpy(open_maps("PM", "CV").maps[:32].copy())
    x = maps.log10()[:, None]
    y = augment(x, torch.Generator().manual_seed(1))
    assert not torch.equal(x, y) and torch.equal(x, maps.log10()[:, None])
    assert torch.equal(y, augment(x, torch.Generator().manual_seed(1)))
    corners = {tuple(m.flatten().tolist()) for m in augment(torch.arange(9.0).view(1, 1, 3, 3).expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))[:, 0]}
    assert len(corners) == 8 * 9


class Server(http.server.BaseHTTPRequestHandler):
    "Serves files from memory, counts what is asked, and hangs up half-way through the first answers."
    def log_message(self, *args): pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        body = self.server.bodies.get(self.path)
        if body is None: return self.send_error(404)
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if self.path.endswith(".npy") and self.server.breaks > 0:
            self.server.breaks -= 1
            end = start + (len(body) - start) // 2
        self.wfile.write(body[start:end])


@pytest.fixture
def server(tmp_path):
    source = tmp_path / "server"
    source.mkdir()
    write_cmd(source)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.bodies = {f"/Astrid/{p.name}": p.read_bytes() for p in source.iterdir()}
    httpd.asked, httpd.breaks = [], 2
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_download_goes_on_after_a_break(tmp_path, server):
    httpd, base = server
    data = download("Astrid", "LH", tmp_path / "CMD", base=base, wait=0.01)
    assert len(data) == 60
    ranges = [r for path, r in httpd.asked if path.endswith(".npy")]
    assert len(ranges) == 3 and ranges[0] is None and ranges[1] and ranges[2]
    assert map_path(tmp_path / "CMD", "Astrid", "LH").read_bytes() == httpd.bodies["/Astrid/Maps_Mcdm_Astrid_LH_z=0.00.npy"]
    n = len(httpd.asked)
    download("Astrid", "LH", tmp_path / "CMD", base=base)
    assert len(httpd.asked) == n  # nothing is asked twice


def test_download_gives_up_and_keeps_what_came(tmp_path, server):
    httpd, base = server
    httpd.breaks = 100
    with pytest.raises(ConnectionError, match="run the same command again"): download("Astrid", "LH", tmp_path / "CMD", base=base, tries=2, wait=0.01)
    assert list((tmp_path / "CMD").glob("*.part")) and not map_path(tmp_path / "CMD", "Astrid", "LH").exists()
    httpd.breaks = 0
    assert len(download("Astrid", "LH", tmp_path / "CMD", base=base, wait=0.01)) == 60


def test_download_names_what_is_not_there(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="404"): download("SIMBA", "LH", tmp_path / "CMD", base=server[1], wait=0.01)
    with pytest.raises(ValueError, match="not on CMD's server"): download("PM", "LH", tmp_path)


def test_batches_cover_everything():
    maps = np.arange(1300, dtype=np.float32).reshape(1300, 1, 1)
    assert np.concatenate(list(batches(maps))).ravel().tolist() == list(range(1300))
    assert np.concatenate(list(batches(MapView(maps, [5, 3, 900]), size=2))).ravel().tolist() == [5, 3, 900]
