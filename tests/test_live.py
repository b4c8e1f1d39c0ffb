"""The live figures in a browser: moved, compared with the package, unplugged."""
import json
import time
from functools import cache

import numpy as np
import pytest
import torch
from conftest import serve, watched

from cosmoflow import CosmoFlow
from cosmoflow.data import open_maps
from cosmoflow.scales import selectivity
from cosmoflow.spectra import cross_correlation, power_spectrum, wavenumbers

PAGES = {"universe": "index.html", "flow": "course/flow.html",
         "scales": "course/scales.html", "summaries": "course/inference.html",
         "paint": "course/model.html", "omega_m": "experiments/omega_m.html",
         "warm": "experiments/warm.html"}
STATE = """figure => {
  const plain = v => v?.length === undefined || typeof v === "string" ? v
    : Array.from(v, plain);
  return Object.fromEntries(Object.entries(figure.cosmoflow).map(
    ([name, v]) => [name, plain(v)]));
}"""


@pytest.fixture(scope="module")
def live(built_site):
    if not (built_site / "live").exists():
        pytest.skip("the site was built without npm, network or the extra `export`")
    return built_site / "live"


def awaken(page, site, figure):
    "The figure of a page, after a reader has pressed its button."
    page.goto(f"{site}/{PAGES[figure]}")
    place = page.locator(".cosmoflow-live")
    place.get_by_role("button", name="Bring this picture to life").click()
    page.wait_for_selector("[data-state=live]", timeout=120_000)
    return place


def answer(page, site, figure):
    "The figure of a page, after a reader has answered its question by keyboard."
    page.goto(f"{site}/{PAGES[figure]}")
    place = page.locator(".cosmoflow-live")
    assert place.locator("details").count() == 0
    assert not [p for p in place.locator("fieldset p").all() if p.is_visible()]
    place.get_by_role("radio").first.press("Space")
    place.get_by_role("button", name="Answer, and see").press("Enter")
    page.wait_for_selector("[data-state=live] .cf-right", timeout=120_000)
    assert all(p.is_visible() for p in place.locator("fieldset p").all())
    verdict = place.locator(".cf-predict [role=status]")
    assert "Below each answer" in verdict.inner_text()
    return place


def until(holds):
    deadline = time.time() + 60
    while not holds() and time.time() < deadline: time.sleep(0.02)
    assert holds(), "nothing happened in a minute"


def after(place, move, counter="draws"):
    "What a figure shows once a move has led to a picture: its state."
    shown = "f => [...f.querySelectorAll('canvas')].map(c => c.toDataURL()).join()"
    count = "(f, c) => f.cosmoflow[c]"
    before, drawn = place.evaluate(shown), place.evaluate(count, counter)
    move()
    until(lambda: place.evaluate(count, counter) != drawn)
    time.sleep(0.3)  # words follow once the hand rests
    assert place.evaluate(shown) != before, "the picture is the same as before"
    return place.evaluate(STATE)


def press(place, name, key):
    slider = place.get_by_role("slider", name=name, exact=True)
    slider.focus()
    slider.press(key)


def point(page, place, name, share, touch):
    "Takes a slider by mouse, or by finger, at a share of its width."
    slider = place.get_by_role("slider", name=name, exact=True)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    at = box["x"] + share * box["width"], box["y"] + box["height"] / 2
    (page.touchscreen.tap if touch else page.mouse.click)(*at)


def as_field(state): return torch.tensor(state["field"]).reshape(1, 8, 4, 4)


@cache
def loaded(name): return CosmoFlow.from_pretrained(name, device="cpu")


def decoded(name, state, **sampling):
    "log10 of the map that the package makes of a figure's field and noise: (64, 64)."
    model = loaded(name)
    noise = torch.tensor(state["noise"]).reshape(1, 1, 64, 64)
    made = torch.randn
    torch.randn = lambda *args, **kwargs: noise
    try: return model.decode(as_field(state), **sampling)[0].log10().numpy()
    finally: torch.randn = made


def check_universe(page, place, touch):
    first = after(place, lambda: point(page, place, "Omega m", 0.1, touch))
    assert first["params"][0] < 0.2
    state = after(place, lambda: press(place, "sigma 8", "End"))
    assert state["params"][1] == 1 and state["params"][0] == first["params"][0]
    log = decoded("mini-fast", state)
    found = np.reshape(state["log"], (64, 64))
    assert np.abs(found - log).max() < 0.01
    power = power_spectrum(10 ** found[None])[1][0].numpy()
    np.testing.assert_allclose(state["power"], power, rtol=1e-4)
    assert "σ₈ = 1.00" in place.locator(".cf-words").inner_text()
    new = place.get_by_role("button", name="Draw a new universe")
    drawn = after(place, new.click)
    assert np.abs(np.subtract(drawn["field"], state["field"])).max() > 0.5
    place.get_by_text("The eight numbers").click()
    number = "number 1, in standard deviations"
    after(place, lambda: press(place, number, "Home"))


def check_flow(page, place, touch):
    name = "flow time t, from noise to map"
    state = place.evaluate(STATE)
    assert state["steps"] == 8 and state["live"] == 4
    log = decoded("mini", state, steps=8, solver="midpoint")
    assert np.abs(np.reshape(state["end"], (64, 64)) - log).max() < 0.05
    move = lambda: point(page, place, name, 0.98, touch)
    state = after(place, move)
    assert state["t"] == 1 and state["live"] == 1
    state = after(place, lambda: press(place, name, "ArrowLeft"))
    assert state["t"] == 0.875 and place.locator(".cf-off").count() == 7
    still = page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    play = place.get_by_role("button", name="Play")
    assert play.count() == 1 - still  # nothing moves by itself for those who ask so
    if not still:
        play.click()
        until(lambda: place.evaluate("f => f.cosmoflow.t") == 1)
    power = power_spectrum(10 ** np.reshape(state["log"], (1, 64, 64)), of="log")[1]
    np.testing.assert_allclose(state["power"], power[0].numpy(), rtol=1e-4)
    steps = place.get_by_role("combobox")
    after(place, lambda: steps.select_option("2"), "flows")


def check_scales(page, place, touch):
    a, b = (place.get_by_role("button", name=f"channel {c} from B") for c in (0, 3))
    mixture = "f => f.querySelectorAll('canvas')[1].toDataURL()"
    seen = [place.evaluate(mixture)]
    for move in (a.tap if touch else a.click, lambda: b.press("Space")):
        state = after(place, move)
        seen.append(place.evaluate(mixture))
    assert len(set(seen)) == 3

    def check(log):
        assert np.abs(np.reshape(state["log"], (64, 64)) - log).max() < 0.05
        maps = [10 ** np.reshape(m, (1, 64, 64))
                for m in (state["log"], *state["ends"])]
        r = [cross_correlation(maps[0], end, of="log")[0] for end in maps[1:]]
        np.testing.assert_allclose(state["r"], torch.stack(r), atol=1e-4)
        held = torch.stack(r)[:, :state["held"]]
        assert abs(state["score"] - selectivity(1 - held)) < 1e-3
        assert f"Score: {state['score']:.2f}" in place.locator(".cf-words").inner_text()

    check(decoded("mini-fast", state))
    mixed = state["score"]
    if touch: return  # one width is enough for the second model
    models = place.get_by_role("combobox")
    state = after(place, lambda: models.select_option("sorted"))
    assert state["name"] == "sorted" and state["held"] == 6
    check(decoded("mini-scales", state, steps=4, solver="midpoint"))
    state = after(place, b.click)  # channel 0 alone: the longest wave, and no other
    (a, b), held = state["r"], slice(2, 5)
    assert b[0] > 0.95 > 0.5 > a[0] and min(a[held]) > 0.95
    assert state["score"] > mixed + 0.1


def check_summaries(page, place, touch):
    name = "walk from the universe before to the chosen one"
    state = after(place, lambda: press(place, name, "Home"))
    model, maps = loaded("mini-fast"), open_maps("PM", "LH").maps[::15]
    start, chosen = state["ends"]  # the walk begins at a map of the package
    field = model.encode(maps[start:start + 1])
    np.testing.assert_allclose(state["field"], field.flatten(), atol=1e-4)
    log = decoded("mini-fast", state)
    assert np.abs(np.reshape(state["log"], (64, 64)) - log).max() < 0.01
    points, plane = place.get_by_role("option"), place.locator(".cf-plane")
    assert points.count() == len(maps) == 120
    plane.scroll_into_view_if_needed()
    box = points.nth(7).bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drawn = after(place, lambda: (
        page.touchscreen.tap if touch else page.mouse.click)(*at))
    assert drawn["ends"] == [chosen, 7]
    universes = place.get_by_role("listbox")
    move = lambda: universes.press("ArrowRight")
    state = after(place, move)
    assert state["ends"][0] == 7 and state["place"][0] > drawn["place"][0]
    selected = place.locator("[aria-selected=true]")
    assert selected.count() == 1
    first = after(place, lambda: press(place, name, "Home"))
    np.testing.assert_allclose(first["field"], drawn["field"], atol=1e-6)
    half = after(place, lambda: point(page, place, name, 0.5, touch))
    s = as_field(half).mean((2, 3))[0].numpy()  # half-way between both summaries
    ends = [as_field(end).mean((2, 3))[0].numpy() for end in (drawn, state)]
    share = half["walked"]
    assert abs(share - 0.5) < 0.1
    np.testing.assert_allclose(s, (1 - share) * ends[0] + share * ends[1], atol=1e-4)
    assert "of the way from" in place.locator(".cf-words").inner_text()


def check_paint(page, place, touch):
    back = place.get_by_role("button", name="Back to the start")
    start = after(place, back.click) if touch else place.evaluate(STATE)
    cells = place.get_by_role("button", name="column 3, row 2 from below")
    (cells.tap if touch else cells.click)()
    place.get_by_role("button", name="channel 0").click()
    name = "value of this cell, in standard deviations"
    state = after(place, lambda: press(place, name, "End"))
    moved = np.flatnonzero(np.subtract(state["field"], start["field"]))
    assert moved.tolist() == [4 + 2]  # of channel 0: row 1, column 2, counted from 0
    log = decoded("mini-fast", state)
    assert np.abs(np.reshape(state["log"], (64, 64)) - log).max() < 0.01
    before, now = (np.reshape(s["log"], (1, 64, 64)) for s in (start, state))
    change = (now - before)[0]
    np.testing.assert_allclose(np.ravel(state["difference"]), change.ravel(), atol=1e-5)
    inside = np.zeros((64, 64), bool)
    inside[16:32, 32:48] = True
    rms = [np.sqrt((change[part]**2).mean()) for part in (~inside, inside)]
    np.testing.assert_allclose(state["rms"], rms, rtol=1e-4)
    power = [power_spectrum(10**m)[1][0].numpy() for m in (now, before)]
    np.testing.assert_allclose(state["ratio"], power[0] / power[1], rtol=1e-3)
    cells.press("ArrowRight")
    after(place, lambda: page.keyboard.press("-"))
    assert "column 4, row 2" in page.evaluate(
        "document.activeElement.getAttribute('aria-label')")
    state = after(place, back.click)
    assert state["field"] == start["field"]


def check_omega_m(page, place, touch):
    name = "Omega m"
    state = after(place, lambda: point(page, place, name, 0.7, touch))
    assert 0.35 < state["omega"] < 0.4 and 0.75 < state["share"] < 0.95
    state = after(place, lambda: press(place, name, "End"))
    assert state["omega"] == 0.5 and state["share"] == 1
    dense = open_maps("PM", "1P").maps[60:61]
    field = loaded("mini-fast").encode(dense)
    np.testing.assert_allclose(state["field"], field.flatten(), atol=1e-3)
    log = decoded("mini-fast", state)
    assert np.abs(np.reshape(state["log"], (64, 64)) - log).max() < 0.01
    steps = np.reshape(state["truth"], (64, 64)) - np.log10(dense[0])
    assert np.abs(steps).max() < 0.02  # 256 of them
    power = power_spectrum(dense, of="log")[1][0]
    np.testing.assert_allclose(state["simulated"], power, rtol=0.03)
    r = cross_correlation(10 ** log[None], dense, of="log")[0]
    np.testing.assert_allclose(state["r"], r, atol=0.01)
    after(place, place.get_by_role("button", name="Another view").click)


def check_warm(page, place, touch):
    name = "mass of the particle"
    state = after(place, lambda: point(page, place, name, 0.5, touch))
    assert 0.3 < state["keV"] < 0.7
    state = after(place, lambda: press(place, name, "ArrowLeft"))
    warm, cold = open_maps("PM", "WDM"), open_maps("PM", "CDM")
    (sim,) = np.flatnonzero(np.isclose(warm.params[:, 2], state["keV"], atol=1e-4))
    shown = warm.maps[15 * sim:15 * sim + 1]
    log = decoded("mini-fast", state)
    assert np.abs(np.reshape(state["log"], (64, 64)) - log).max() < 0.01
    powers = [power_spectrum(m, of="log")[1][0].numpy()
              for m in (10 ** log[None], shown, cold.maps[15 * sim:15 * sim + 1])]
    below = wavenumbers(64) < 6  # above, 256 steps tell
    for found, (a, b) in (("excess", powers[:2]), ("lost", powers[1:])):
        seen = np.array(state[found])[below]
        np.testing.assert_allclose(seen, (a / b)[below], rtol=0.04)
    assert f"{state['keV']:.2f} keV" in place.locator(".cf-words").inner_text()


CHECKS = {"universe": check_universe, "flow": check_flow, "scales": check_scales,
          "summaries": check_summaries, "paint": check_paint,
          "omega_m": check_omega_m, "warm": check_warm}
# What an answer to the question before a figure shows.
REVEALED = {"universe": lambda state: state["params"][0] == 0.1 and 0.3 < np.median(
                np.divide(state["power"], state["before"])) < 0.7,
            "flow": lambda state: state["t"] == 0.5,
            "scales": lambda state: np.mean(state["r"][1][:3]) > 0.9,
            "omega_m": lambda state: abs(state["share"] - 0.5) < 0.03,
            "summaries": lambda state: state["walked"] == 0.5 > state["read"][0] + 0.22,
            "paint": lambda state: state["rms"][1] > 3 * state["rms"][0] > 0,
            "warm": lambda state: state["keV"] < 0.27}


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (1400, "light")])
@pytest.mark.parametrize("figure", CHECKS)
def test_moves_by_hand_and_key_and_its_numbers_are_right(
        live, site, browser, figure, width, scheme):
    from axe_playwright_python.sync_playwright import Axe
    touch = width < 1000
    page = watched(browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=touch,
        reduced_motion="reduce" if touch else "no-preference"), site)
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(f"{site}/{PAGES[figure]}", wait_until="networkidle")
    assert not [url for url in asked if "/engine/" in url or "/models/" in url]
    if touch:
        place = answer(page, site, figure)
        assert REVEALED[figure](place.evaluate(STATE))
        back = place.get_by_role("button", name="All from A")
        if back.count(): after(place, back.tap)
    else: place = awaken(page, site, figure)
    spoken = "f => [...f.querySelectorAll('[role=img]')].map(e => e.ariaLabel)"
    said = place.evaluate(spoken)
    CHECKS[figure](page, place, touch)
    now = place.evaluate(spoken)
    assert all(now) and now != said, "who cannot see the pictures hears nothing new"
    is_dark = "dark => document.querySelector(':root.quarto-dark') ? dark : !dark"
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        page.wait_for_function(is_dark, arg=colours == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        axed = Axe().run(page, context=".cosmoflow-live",
                         options={"resultTypes": ["violations"]})
        bad = [(v["id"], v["nodes"][0]["html"][:120])
               for v in axed.response["violations"]
               if v["impact"] in ("serious", "critical")]
        assert not bad, colours
    assert not page.trouble
    page.close()


def test_questions_can_be_read_without_javascript(live, site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for figure in REVEALED:
        page.goto(f"{site}/{PAGES[figure]}")
        question = page.locator(".cosmoflow-live details")
        assert page.locator(".cosmoflow-live img").is_visible()
        question.locator("summary").click()
        assert question.locator("li").count() == 4
        assert question.locator(".right").is_visible()
    context.close()


def test_mathematics_is_that_of_the_package(live, site, page):
    maps = open_maps("PM", "LH").maps[:2]
    logs = [np.log10(m).flatten().tolist() for m in maps]
    page.goto(f"{site}/site/about.html")
    found = page.evaluate("""async ([url, logs]) => {
      const m = await import(url + "maths.js");
      const about = await (await fetch(url + "about.json")).json();
      const lists = v => ArrayBuffer.isView(v) ? Array.from(v) : v;
      return Object.fromEntries(Object.entries({
        k: m.wavenumbers(64, 25), density: m.powerSpectrum(logs[0], 25, "density"),
        log: m.powerSpectrum(logs[0], 25, "log"), r: m.crossCorrelation(...logs),
        white: m.normals(128, 5), field: m.drawField(about.prior, [8, 4, 4], 5),
        means: m.apply(about.toSummary, [0.3, 0.8]),
        many: m.normals(100000, 1),
      }).map(([name, v]) => [name, lists(v)]));
    }""", [f"{site}/live/", logs])
    close = lambda a, b, **kwargs: np.testing.assert_allclose(
        a, np.asarray(b).flatten(), **kwargs)
    close(found["k"], wavenumbers(64), rtol=1e-6)
    for of in ("density", "log"):
        close(found[of], power_spectrum(maps[:1], of=of)[1], rtol=1e-4)
    close(found["r"], cross_correlation(*maps[:, None], of="log"), atol=1e-5)
    many = np.array(found["many"])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    # the field that the package draws from the same white noise
    prior = torch.view_as_complex(CosmoFlow.from_pretrained("mini-fast").prior.cpu())
    white = torch.tensor(found["white"]).reshape(8, 4, 4)
    modes = torch.einsum("hwcd,dhw->chw", prior[:, :, 1:], torch.fft.fft2(white))
    close(found["field"], torch.fft.ifft2(modes).real
          + prior[0, 0, 0].real[:, None, None], atol=1e-4)
    layers = json.loads((live / "about.json").read_text(encoding="utf-8"))["toSummary"]
    x = (np.array([0.3, 0.8]) - layers["input"]["mean"]) / layers["input"]["std"]
    first, last = layers["layers"]
    h = np.maximum(np.array(first["weight"]) @ x + first["bias"], 0)
    y = np.array(last["weight"]) @ h + last["bias"]
    close(found["means"], y * layers["output"]["std"] + layers["output"]["mean"],
          rtol=1e-5, atol=1e-6)


def test_the_widget_answers_what_its_figure_asks():
    from cosmoflow.live import LiveFigure, live, networks
    model = loaded("mini-fast")
    field = model.encode(open_maps("PM", "LH").maps[:1])
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    widget, sent = LiveFigure("paint", {}, networks(model)), []
    widget.send = lambda *reply: sent.append(reply)
    shapes = {"noise": [1, 1, 64, 64], "field": [1, 8, 4, 4]}
    parts = [memoryview(part.numpy().tobytes()) for part in (noise, field)]
    for name in ("decoder", "nothing"):
        asked = {"id": len(sent), "network": name, "shapes": shapes}
        widget._handle_custom_msg(asked, parts)
    (reply, (numbers,)), (refused, none) = sent
    x = torch.tensor(np.frombuffer(numbers, np.float32)).view(1, 64, 64)
    torch.testing.assert_close(model.normalizer.inverse(x[None]),
                               model.decode(field, seed=3), rtol=1e-4, atol=0)
    assert reply == {"id": 0, "names": ["x"]}
    assert refused["id"] == 1 and "nothing" in refused["error"] and not none
    with pytest.raises(ValueError, match="expected one of .*universe"): live("nothing")


def test_a_file_says_what_only_some_readers_ask_for():
    from cosmoflow.live import FIGURES, needs
    asked = {figure: needs(figure, later=True) for figure in FIGURES}
    assert {f: names for f, names in asked.items() if names} == {"scales": ["sorted"]}
    assert needs("scales") == ["decoder"]


def test_lives_without_a_network_after_the_first_visit(live, built_site, browser):
    "One figure for each kind of file: decoder, flow, maps."
    context = browser.new_context()
    page, sliders = context.new_page(), {
        "universe": "Omega m", "flow": "flow time t, from noise to map",
        "warm": "mass of the particle"}
    with serve(built_site) as site:
        for figure in sliders:
            awaken(page, site, figure)
            page.wait_for_selector("[data-kept]", state="attached")
    for figure, slider in sliders.items():  # the server is gone
        place = awaken(page, site, figure)
        after(place, lambda: press(place, slider, "Home"))
    context.close()


def test_the_first_figure_is_small(live):
    about = json.loads((live / "about.json").read_text(encoding="utf-8"))
    first = sum(about["bytes"][about["models"][name]] for name in ("engine", "decoder"))
    code = sum((live / name).stat().st_size for name in
               ("about.json", "engine/ort.mjs", "figure.js", "maths.js", "universe.js",
                "worker.js"))
    assert first + code < 12e6
