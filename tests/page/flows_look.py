"""Looking: the map, why something matched, and health."""

import base64
import io

from PIL import Image

from stage import until

LEFT, RIGHT = ("1f34e", "red apple"), ("1f308", "rainbow")
PAIRS = "pairs"


def the_map_is_drawn_moved_and_leads_to_more_like_it(at):
    page = at.page
    at.open("?collection=demo&view=map")
    drawn = "Number(document.querySelector('#map').dataset.points)"
    until(lambda: page.evaluate(drawn) == 3944, "all points are drawn", seconds=420)
    assert page.locator("#map-wait").is_hidden()
    until(lambda: page.evaluate("Number(document.querySelector('#map').dataset.pictures)") > 30, "pictures")
    page.locator("#near > li").first.wait_for()
    at.fine("map")
    page.locator("#map").focus()
    for _ in range(6):
        page.keyboard.press("+")
    until(lambda: 0 < page.evaluate(drawn) < 2500, "it is zoomed in")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(600)
    at.fine("map-near")
    # A hundred moves with all points in sight.
    page.keyboard.press("0")
    until(lambda: page.evaluate(drawn) == 3944, "all points are drawn")
    took = page.evaluate(
        """async () => {
             const map = document.querySelector('#map');
             const frame = () => new Promise(requestAnimationFrame);
             const began = performance.now();
             for (let i = 0; i < 60; i += 1) {
               const key = i % 2 ? 'ArrowLeft' : 'ArrowRight';
               map.dispatchEvent(new KeyboardEvent('keydown', { key }));
               await frame();
               await frame();
             }
             return (performance.now() - began) / 60;
           }""")
    assert took < 200, f"{took} ms for one move"
    if at.size == "desk":
        box = page.locator("#map").bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for d in range(-60, 60, 4):
            page.mouse.move(middle[0] + d, middle[1] + d / 2)
            if page.locator("#map-card").is_visible():
                break
        page.locator("#map-card").wait_for()
        at.fine("map-card")
    # The list of what is near follows the last move a moment later.
    page.wait_for_timeout(800)
    name = page.locator("#near .name").first.inner_text()
    page.locator("#near .hit").first.click()
    page.get_by_role("button", name=f"Remove {name}").wait_for()
    at.settled()
    assert "view=" not in page.url


def the_overview_is_another_map(at):
    page = at.page
    at.open("?collection=demo&view=map&method=pca")
    drawn = "Number(document.querySelector('#map').dataset.points)"
    until(lambda: page.evaluate(drawn) == 3944, "all points are drawn", seconds=240)
    assert "PCA" in page.locator("#map-say").inner_text()
    # On a screen without a pointer, too.
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    until(lambda: page.evaluate(drawn) < 3944, "it is zoomed in")
    if at.size == "desk":
        box = page.locator("#map").bounding_box()
        for d in range(-90, 90, 4):
            page.mouse.move(box["x"] + box["width"] / 2 + d, box["y"] + box["height"] / 2 + d / 2)
            page.wait_for_timeout(30)
            if page.locator("#map-card").is_visible():
                break
        page.locator("#map-card").wait_for()
        page.mouse.wheel(0, -200)
        page.locator("#map-card").wait_for(state="hidden")
    page.get_by_role("button", name="Show the whole map").click()
    until(lambda: page.evaluate(drawn) == 3944, "all points are drawn")
    page.locator("#map").focus()
    page.locator("#near > li").first.wait_for()
    page.keyboard.press("Enter")
    page.locator("#chips > li").first.wait_for()


def pair(server):
    """One picture of two drawings side by side."""
    whole = Image.new("RGB", (256, 128), "white")
    for i, (point, _) in enumerate([LEFT, RIGHT]):
        drawing = Image.open(io.BytesIO(server.picture("demo", point))).convert("RGB")
        whole.paste(drawing.resize((128, 128)), (128 * i, 0))
    file = io.BytesIO()
    whole.save(file, "PNG")
    server.call("PUT", f"/v1/collections/{PAIRS}")
    server.call("POST", f"/v1/collections/{PAIRS}/items", {
        "id": "pair", "image": base64.b64encode(file.getvalue()).decode(), "payload": {"name": "two things"}})


def what_was_asked_for_lights_up_in_its_half(at):
    page = at.page
    pair(at.server)
    for (_, word), side in [(LEFT, "left"), (RIGHT, "right")]:
        at.open(f"?collection={PAIRS}&q={word}")
        at.settled()
        page.get_by_role("button", name="Details of two things").click(force=True)
        page.locator("#heat-say", has_text="Bright is like the question").wait_for()
        dark = page.evaluate(
            """() => {
                 const c = document.querySelector('#heat');
                 const half = (x) => {
                   const { data } = c.getContext('2d').getImageData(x, 0, c.width / 2, c.height);
                   let sum = 0;
                   for (let i = 3; i < data.length; i += 4) sum += data[i];
                   return sum / (data.length / 4);
                 };
                 return [half(0), half(Math.floor(c.width / 2))];
               }""")
        bright = "left" if dark[0] < dark[1] else "right"
        assert bright == side, f"{word} is {side}; darkness of the halves: {dark}"
        assert side in page.locator("#heat-say").inner_text(), page.locator("#heat-say").inner_text()
        at.fine(f"why-{word}")
        page.get_by_label("Why this matched").uncheck()
        assert page.locator("#heat").is_hidden()
        page.keyboard.press("Escape")


def health_tells_recall_latency_sizes_and_jobs(at):
    page = at.page
    at.open("?collection=demo&q=rainbow")
    at.settled()
    page.get_by_role("link", name="Health").click()
    page.get_by_role("heading", name="Collection demo").wait_for()
    assert page.locator("#health").get_by_text("Ready").is_visible()
    said = page.locator("#health").inner_text()
    for word in ["3,944", "Recall audit", "Latency", "p95", "/search", "diptych-mini"]:
        assert word in said, f"{word} is not in {said}"
    at.fine("health")
    page.screenshot(path=at.shots / f"health-whole-{at.size}.png", full_page=True)


FLOWS = [
    the_map_is_drawn_moved_and_leads_to_more_like_it, the_overview_is_another_map,
    what_was_asked_for_lights_up_in_its_half, health_tells_recall_latency_sizes_and_jobs,
]
