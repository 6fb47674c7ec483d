"""A running server, a browser, and how a page is looked at."""

import contextlib
import json
import subprocess
import time
import urllib.request

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
SCHEMES = ["light", "dark"]
PATIENCE_MS = 30_000


class Server:
    """The binary with a data folder, stopped at the end of a `with`."""

    def __init__(self, binary, *arguments):
        self.process = subprocess.Popen(
            [binary, *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True)
        line = next((line for line in self.process.stdout if "http://" in line), None)
        assert line, f"the server printed no address: {self.process.wait()}"
        self.url = line[line.index("http://"):].strip().rstrip("/")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def picture(self, collection, item):
        """The file of an item's picture."""
        path = f"/v1/collections/{collection}/items/{item}/image"
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()


class Look:
    """One page of a browser, at one size."""

    def __init__(self, page, server, axe, shots, size):
        self.page, self.server, self.axe, self.shots, self.size = page, server, axe, shots, size
        self.wrong = []
        # What a flow expects the console to complain about.
        self.expected = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        page.on("request", self.sent)

    def sent(self, request):
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.wrong.append(f"asked elsewhere: {request.url}")

    def open(self, address=""):
        self.page.goto(f"{self.server.url}/{address}")

    def settled(self, results="#hits"):
        """Waits until results are there and nothing is searched."""
        self.page.wait_for_selector(f"{results} > li")
        self.true(f"!document.querySelector('{results}').matches('.stale, [aria-busy]')")

    def true(self, expression):
        """Waits until something is true. `wait_for_function` would need what the page's policy refuses."""
        until(lambda: self.page.evaluate(expression), expression)

    def names(self, results="#hits"):
        return self.page.locator(f"{results} .name").all_inner_texts()

    def ids(self, results="#hits"):
        return self.page.eval_on_selector_all(
            f"{results} > li", "all => all.map(li => li.dataset.id)")

    def fine(self, name):
        """Keeps what is seen in light and in dark, and asks whether anything keeps people out."""
        for scheme in SCHEMES:
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            self.page.wait_for_timeout(150)
            self.page.screenshot(path=self.shots / f"{name}-{self.size}-{scheme}.png")
            self.page.evaluate(self.axe)
            found = self.page.evaluate(
                "async () => (await axe.run(document, { resultTypes: ['violations'] })).violations"
                ".filter(v => ['serious', 'critical'].includes(v.impact))"
                ".map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html + ' ' + (n.any[0]?.message ?? ''))])")
            assert not found, f"{name}, {self.size}, {scheme}: {found}"
        root = "document.documentElement"
        sticks = self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
        assert sticks <= 0, f"{name}: {sticks} pixels stick out at the width of a {self.size}"
        self.page.emulate_media(color_scheme="light", reduced_motion="reduce")

    def done(self):
        said = [w for w in self.wrong if not any(e in w for e in self.expected)]
        assert not said, f"the page complained: {said}"


@contextlib.contextmanager
def look(browser, server, axe, shots, size):
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=size == "phone",
        reduced_motion="reduce", device_scale_factor=1)
    try:
        seen = Look(context.new_page(), server, axe, shots, size)
        yield seen
        seen.done()
    finally:
        context.close()


def until(true, what, seconds=PATIENCE_MS / 1000):
    """Waits for something that the page does not tell."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.1)
