"""Takes pictures of the live figures of the built site, on a phone and on a desk.

Each shows a figure before and after the question before it moved it. They stand on the
page of the live figures.

Use, after `make docs`: python nbs/site/_live_pictures.py
"""
import time
from io import BytesIO
from pathlib import Path

from _browser import browse, serve
from _live_times import SITE, pages
from PIL import Image
from playwright.sync_api import Page

FOLDER = Path(__file__).parent / "images" / "live"
DEVICES = {"phone": (390, "dark"), "desk": (1400, "light")}  # width, colours
GAP = 20  # pixels between both pictures


def rested(page: Page) -> Image.Image:
    "A figure, once it has not drawn anything for a while."
    draws, seen = "document.querySelector('.cosmoflow-live').cosmoflow.draws", -1
    while (now := page.evaluate(draws)) != seen:
        seen = now
        time.sleep(1.5)
    return Image.open(BytesIO(page.locator(".cf-figure").screenshot()))


def moved(page: Page, address: str) -> list[Image.Image]:
    "The figure of a page, before and after."
    page.goto(address)
    page.get_by_role("button", name="Bring this picture to life").click()
    page.wait_for_selector("[data-state=live]", timeout=120_000)
    before = rested(page)
    page.get_by_role("radio").first.check()
    page.get_by_role("button", name="Answer, and see").click()
    return [before, rested(page)]


def beside(pictures: list[Image.Image]) -> Image.Image:
    "Two pictures on one sheet."
    width = sum(picture.width for picture in pictures) + GAP
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)),
                      pictures[0].getpixel((0, 0)))
    for picture, x in zip(pictures, (0, pictures[0].width + GAP)):
        sheet.paste(picture, (x, 0))
    return sheet


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with serve(SITE) as site, browse() as browser:
        for name, path in pages().items():
            for device, (width, scheme) in DEVICES.items():
                page = browser.new_page(  # so high that no bar floats above a figure
                    viewport={"width": width, "height": 2400}, color_scheme=scheme)
                sheet = beside(moved(page, f"{site}/{path}"))
                sheet.save(FOLDER / f"{name}-{device}.webp", quality=70, method=6)
                page.close()


if __name__ == "__main__": main()
