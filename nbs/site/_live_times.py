"""Measures the live figures of the built site in Chromium, and keeps a record.

For each figure: what travels over the wire, how long a reader waits at 20 Mbit/s, how
long a redraw takes, here and on a page four times slower, and the memory of the tab.

Use, after `make docs`, on a machine that does nothing else:
python nbs/site/_live_times.py
"""
import re
import statistics
import threading
import time
from pathlib import Path

from _browser import Quiet, browse, serve
from playwright.sync_api import Page

from cosmoflow.core import write_json
from cosmoflow.results import hardware

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_docs"
RECORD = ROOT / "cosmoflow" / "records" / "live" / "figures.json"
RATE = 20e6 / 8  # bytes a second
MOVES = 30
MOVE = """async moves => {
  const place = document.querySelector(".cosmoflow-live"), state = place.cosmoflow;
  const slider = place.querySelector("input[type=range]");
  const channels = place.querySelectorAll("button[aria-label$='from B']");
  const count = () => (state.draws ?? 0) + (state.shows ?? 0);
  const rest = ms => new Promise(resolve => setTimeout(resolve, ms));
  const times = [];
  for (let i = 0; i < moves; i++) {
    const before = count(), start = performance.now();
    if (channels.length) channels[i % channels.length].click();
    else {
      const share = (0.1 + 0.37 * i) % 1;
      slider.value = +slider.min + share * (slider.max - slider.min);
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
    while (count() === before && performance.now() - start < 3000) await rest(1);
    if (count() !== before) times.push(performance.now() - start);
    await rest(100);
  }
  return times;
}"""


class Slow(Quiet):
    "A server behind a line of 20 Mbit/s, which all its answers share."
    line, sent = threading.Lock(), 0

    def copyfile(self, source, output):
        while piece := source.read(16_384):
            with Slow.line:
                time.sleep(len(piece) / RATE)
                Slow.sent += len(piece)
            output.write(piece)


def pages() -> dict[str, Path]:
    "By name of its figure, each page of the site that holds one."
    found = {}
    for path in sorted(SITE.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'class="cosmoflow-live" data-figure="(\w+)"', text):
            found[name] = path.relative_to(SITE)
    return found


def memory() -> float:
    "MB of the largest tab: beside it Chromium keeps an empty one in reserve."
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" not in (process / "cmdline").read_bytes(): continue
            rolled = (process / "smaps_rollup").read_text(encoding="utf-8")
        except OSError: continue
        found.append(int(re.search(r"^Pss:\s+(\d+)", rolled, re.M)[1]) / 1e3)
    return max(found)


def measured(page: Page, address: str) -> dict:
    "One figure, from the press of its button on."
    page.goto(address, wait_until="networkidle")
    before, start = Slow.sent, time.perf_counter()
    page.get_by_role("button", name="Bring this picture to life").click()
    page.wait_for_selector("[data-state=live]", timeout=120_000)
    found = {"seconds at 20 Mbit/s": time.perf_counter() - start,
             "MB": (Slow.sent - before) / 1e6}
    page.evaluate(MOVE, 5)  # compiles what is used
    times = page.evaluate(MOVE, MOVES)
    found |= {"redraw, ms": statistics.median(times), "slowest, ms": max(times),
              "memory, MB": memory()}
    tools = page.context.new_cdp_session(page)
    tools.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    found["redraw on a page four times slower, ms"] = statistics.median(
        page.evaluate(MOVE, MOVES))
    return found


def main() -> None:
    results = {}
    with serve(SITE, Slow) as site:
        for name, path in pages().items():
            with browse() as browser:  # a new one, whose memory holds one figure
                results[name] = measured(browser.new_page(), f"{site}/{path}")
                version = browser.version
            print(name, {k: round(v, 1) for k, v in results[name].items()}, flush=True)
    write_json(RECORD, {"hardware": hardware(), "chromium": version,
                        "figures": results})


if __name__ == "__main__": main()
