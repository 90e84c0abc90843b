"""A page in a browser, watched."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

PROBES = Path(__file__).parent / "page_probes.js"


class Watched:
    """A page of which everything is noted that it must not do."""

    def __init__(self, browser, url, width=1280, height=900):
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.context.add_init_script(path=PROBES)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, route=""):
        self.page.goto(f"{self.url}/{route}")
        self.page.locator("h1").wait_for()

    def check(self, *expected):
        """Nothing but what a test provokes: no script error, violation or foreign request."""
        assert [c for c in self.complaints if not any(part in c for part in expected)] == []
        assert self.page.evaluate("window.violations") == []
        here = urlsplit(self.url).netloc
        assert {urlsplit(url).netloc for url in self.requests if "://" in url} == {here}

    def check_for_all(self):
        """Names, references, contrast; when fades have ended, or a button is seen half enabled."""
        self.page.evaluate("Promise.all(document.getAnimations().map((fade) => fade.finished))")
        for probe in ("nameless", "broken", "faint"):
            assert self.page.evaluate(f"probes.{probe}()") == [], probe
