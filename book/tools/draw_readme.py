"""Photograph three places of the built book for README.md: `make book`, then run this in .venv."""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "book" / "_build" / "html"
PLACES = (  # page, what to scroll to
    ("chapters/02_tokenization.html", ".minillm-tokens"),
    ("chapters/05_attention.html", ".minillm-explore"),
    ("chapters/10_gpt.html", "text=Now let it write"),
)
WIDTH, HEIGHT, GAP = 760, 980, 24
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def photographs() -> list[Image.Image]:
    """Return one picture per place, as a tablet would show it."""
    found = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        view = {"width": WIDTH, "height": HEIGHT}
        page = browser.new_page(viewport=view, device_scale_factor=1.5)
        for name, target in PLACES:
            page.goto((HTML / name).as_uri())
            page.locator(target).first.evaluate(
                "e => window.scrollTo(0, e.getBoundingClientRect().top + scrollY - 160)"
            )
            page.wait_for_timeout(500)
            found.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    return found


if __name__ == "__main__":
    pictures = photographs()
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i * (width + GAP), 0))
    sheet.thumbnail((1800, 1800))
    sheet.quantize(256, method=Image.Quantize.FASTOCTREE).save(
        ROOT / "book" / "_static" / "readme.png", optimize=True
    )
