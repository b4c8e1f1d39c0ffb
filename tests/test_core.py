"""What the package keeps as JSON is what `write_json` writes, byte for byte, and a damaged file is named."""

import pytest
from conftest import ROOT

from cosmoflow.core import read_json, write_json

KEPT = [*ROOT.glob("cosmoflow/records/**/*.json"), *ROOT.glob("cosmoflow/weights/*/config.json")]


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_records_come_back_to_the_byte(path, tmp_path):
    write_json(tmp_path / "again.json", read_json(path))
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"r": [1.0, ')
    with pytest.raises(ValueError, match="metrics.json: expected JSON"): read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="metrics.json: expected JSON"): read_json(path)
