"""The search."""

import base64
import json

from stage import until

# What is typed, and the code point of the only picture with that name.
WORD, POINT = "rainbow", "1f308"
SHOP = "shop"


def words_find_their_picture_and_the_address_keeps_them(at):
    page = at.page
    at.open("?collection=demo")
    page.get_by_text("3,944 pictures").first.wait_for()
    at.fine("search-idle")
    page.get_by_role("searchbox", name="Describe what you look for").fill(WORD)
    page.wait_for_selector(f"#hits > li:first-child[data-id='{POINT}']")
    at.settled()
    at.true("document.querySelector('#hits img').naturalWidth > 0")
    assert len(at.ids()) >= 10
    assert "%" in page.locator("#hits .sure").first.inner_text()
    assert f"q={WORD}" in page.url
    at.fine("search-words")
    page.reload()
    page.wait_for_selector(f"#hits > li:first-child[data-id='{POINT}']")
    assert page.locator("#text").input_value() == WORD
    # Escape leaves the grid for the box, and a slash elsewhere does so, too.
    page.locator("#hits .hit").first.focus()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "text"


def a_search_without_an_answer_says_so(at):
    page = at.page
    at.open("?collection=demo&q=xqzzvk+flurbl")
    page.get_by_role("heading", name="No good match").wait_for()
    at.settled()
    at.fine("search-no-match")
    page.locator("#refine summary").click()
    page.get_by_label("Leave out what is unsure").check()
    at.true("document.querySelectorAll('#hits > li').length === 0")
    page.get_by_role("heading", name="No good match").wait_for()
    assert "sure=1" in page.url
    # One good hit far down the list once kept the note away, with 0 % for the first ones.

    def only_the_last(route):
        answer = route.fetch()
        found = answer.json()
        for hit in found["hits"]:
            hit["confidence"] = 0.9 if hit is found["hits"][-1] else 0.01
        route.fulfill(response=answer, json=found)

    page.route("**/search", only_the_last)
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    page.get_by_role("heading", name="No good match").wait_for()


def a_click_finds_more_like_it_and_back_returns(at):
    page = at.page
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    before = at.ids()
    page.locator("#hits .hit").first.click()
    at.true(f"!document.querySelector('#hits > li[data-id=\"{POINT}\"]')")
    at.settled()
    page.get_by_role("button", name=f"Remove {WORD}").wait_for()
    assert page.locator("#chips .chip-name").all_inner_texts() == [WORD]
    at.fine("search-like")
    page.go_back()
    page.wait_for_selector(f"#hits > li:first-child[data-id='{POINT}']")
    at.settled()
    assert at.ids()[:5] == before[:5]
    page.go_forward()
    page.get_by_role("button", name=f"Remove {WORD}").click()
    page.get_by_role("heading", name="Type a few words").wait_for()


def several_things_are_asked_with_plus_and_minus(at):
    page = at.page
    bodies = []
    page.on("request", lambda r: r.url.endswith("/search") and bodies.append(json.loads(r.post_data)))
    at.open("?collection=demo&q=red+apple")
    at.settled()
    page.get_by_role("button", name="Keep words").click()
    at.settled()
    page.locator("#text").fill("face")
    page.get_by_role("button", name="Avoid words").click()
    at.settled()
    first = page.locator("#hits > li").first
    name = first.locator(".name").inner_text()
    if at.size == "desk":
        first.hover()
        first.get_by_role("button", name=f"Add {name} to the search").click()
    else:
        first.get_by_role("button", name=f"Details of {name}").click()
        page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    until(lambda: bodies and len(bodies[-1].get("parts", [])) == 3, "three parts")
    at.settled()
    assert [round(p["weight"], 2) for p in bodies[-1]["parts"]] == [1, -0.5, 1], bodies[-1]
    assert [next(k for k in p if k != "weight") for p in bodies[-1]["parts"]] == ["text", "text", "id"]
    at.fine("search-parts")
    page.get_by_role("button", name="Avoiding face. Look for it instead").click()
    until(lambda: bodies[-1]["parts"][1]["weight"] == 1, "the sign is turned")
    page.reload()
    at.settled()
    assert page.locator("#chips > li").count() == 3
    page.get_by_role("button", name="Remove face").click()
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("heading", name="Type a few words").wait_for()
    assert "p=" not in page.url


def drop(page, zone, name, data, kind="image/png"):
    """Drops a file on the page, as the browser tells it."""
    page.evaluate(
        """async ([zone, name, data, kind]) => {
             const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
             const all = new DataTransfer();
             all.items.add(new File([bytes], name, { type: kind }));
             const tell = (kind, on) => on.dispatchEvent(new DragEvent(kind,
               { dataTransfer: all, bubbles: true, cancelable: true }));
             tell('dragenter', document.body);
             window.dragged = document.querySelector('#drop').matches('.open');
             const on = document.querySelector(zone);
             tell('dragover', on);
             tell('drop', on);
           }""",
        [zone, name, base64.b64encode(data).decode(), kind])


def pictures_are_dropped_pasted_and_picked(at):
    page = at.page
    picture = at.server.picture("demo", POINT)
    at.open("?collection=demo")
    page.get_by_role("heading", name="Type a few words").wait_for()
    drop(page, "#drop-new", "mine.png", picture)
    assert page.evaluate("window.dragged")
    page.wait_for_selector(f"#hits > li:first-child[data-id='{POINT}']")
    at.settled()
    assert page.locator("#chips .chip-name").all_inner_texts() == ["mine.png"]
    at.fine("search-picture")
    # Another takes its place, unless it is dropped to be added.
    drop(page, "#drop-add", "more.png", at.server.picture("demo", "1f34e"))
    at.true("document.querySelectorAll('#chips > li').length === 2")
    at.settled()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Picture", exact=True).click()
    chooser.value.set_files({"name": "picked.png", "mimeType": "image/png", "buffer": picture})
    at.true("document.querySelectorAll('#chips > li').length === 1")
    assert page.locator("#chips .chip-name").all_inner_texts() == ["picked.png"]
    page.evaluate(
        """(data) => {
             const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
             const all = new DataTransfer();
             all.items.add(new File([bytes], 'pasted.png', { type: 'image/png' }));
             document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: all, cancelable: true }));
           }""", base64.b64encode(picture).decode())
    page.get_by_text("pasted.png").wait_for()
    # A picture among the words of the address is found again by going back.
    page.locator("#hits .hit").nth(2).click()
    at.true("!document.querySelector('#chips').textContent.includes('pasted')")
    page.go_back()
    page.get_by_text("pasted.png").wait_for()


def shared_and_specific_are_explained_and_compared(at):
    page = at.page
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    page.locator("#refine summary").click()
    specific = page.get_by_role("radio", name="Specific")
    assert specific.is_disabled() and "pictures alone" in page.locator("#spaces-say").inner_text()
    page.locator("#hits .hit").first.click()
    page.get_by_role("button", name=f"Remove {WORD}").wait_for()
    at.settled()
    shared = at.ids()
    with page.expect_response(lambda r: r.url.endswith("/search")) as found:
        specific.check(force=True)
    assert found.value.json()["space"] == "specific"
    at.settled()
    assert at.ids() != shared and "no words say" in page.locator("#spaces-say").inner_text()
    assert "space=specific" in page.url
    at.fine("search-specific")


def near_duplicates_are_folded_and_unfolded(at):
    page = at.page
    at.open("?collection=demo&q=waving+hand")
    at.settled()
    button = page.locator("#hits .unfold").first
    button.wait_for()
    n = int(button.inner_text().split()[0].rstrip(","))
    count = len(at.ids())
    button.click()
    at.true(f"document.querySelectorAll('#hits > .twin').length === {n}")
    assert len(at.ids()) == count + n and button.get_attribute("aria-expanded") == "true"
    at.fine("search-unfolded")
    button.click()
    at.true("!document.querySelector('#hits > .twin')")
    page.locator("#refine summary").click()
    page.get_by_label("Fold near duplicates").uncheck()
    at.true("!document.querySelector('#hits .unfold')")
    assert "fold=0" in page.url


def shop(server):
    """A small collection with a field of each kind."""
    kinds = {"kind": "keyword", "price": "integer", "weight": "float", "sold": "bool", "added": "datetime"}
    server.call("PUT", f"/v1/collections/{SHOP}", {"fields": kinds})
    items = []
    for i, (point, name) in enumerate([("1f34e", "apple"), ("1f34a", "tangerine"), ("1f955", "carrot"),
                                       ("1f436", "dog"), ("1f431", "cat"), ("1f697", "car")]):
        picture = base64.b64encode(server.picture("demo", point)).decode()
        payload = {"name": name, "kind": "food" if i < 3 else "other", "price": 10 * i, "weight": i / 2,
                   "sold": i % 2 == 0, "added": f"2026-01-0{i + 1}T12:00:00Z"}
        items.append({"id": name, "image": picture, "payload": payload})
    server.call("POST", f"/v1/collections/{SHOP}/items", items)


def filters_of_every_kind_narrow_a_search(at):
    page = at.page
    shop(at.server)
    at.open(f"?collection={SHOP}&q=something&fold=0")
    at.settled()

    def only(*names):
        until(lambda: sorted(at.names()) == sorted(names), f"{names}; there are {at.names()}")

    only("apple", "tangerine", "carrot", "dog", "cat", "car")
    page.locator("#refine summary").click()
    page.get_by_label("kind contains").fill("food")
    only("apple", "tangerine", "carrot")
    page.get_by_label("price from").fill("10")
    only("tangerine", "carrot")
    page.get_by_label("sold is").select_option("yes")
    only("carrot")
    assert "f=" in page.url
    at.fine("search-filters")
    page.reload()
    only("carrot")
    page.locator("#refine summary").click()
    assert page.get_by_label("price from").input_value() == "10"
    page.get_by_label("kind contains").fill("")
    page.get_by_label("price from").fill("")
    page.get_by_label("sold is").select_option("any")
    page.get_by_label("added from").fill("2026-01-03")
    page.get_by_label("added to").fill("2026-01-04")
    only("carrot", "dog")
    page.get_by_label("weight to").fill("1.2")
    only("carrot")
    page.get_by_label("weight to").fill("0.2")
    page.locator("#found-text", has_text="No item passes these filters.").wait_for()
    # A value that is none is said, and does not end the search.
    page.get_by_label("weight to").fill("")
    page.get_by_label("price from").fill("1.5")
    page.get_by_text("Left out: price from.").wait_for()
    only("carrot", "dog")
    page.locator("#status", has_text="cannot be told among so few items").wait_for()
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("heading", name="Type a few words").wait_for()
    assert "f=" not in page.url and page.get_by_label("added from").input_value() == ""


def the_grid_is_walked_by_keys(at):
    page = at.page
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    page.locator("#text").focus()
    focused = "document.activeElement.closest('#hits > li')?.dataset.id"
    ids = at.ids()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == ids[1]
    page.keyboard.press("ArrowDown")
    row = page.evaluate(
        "[...document.querySelectorAll('#hits > li')].filter((li, _, all) => li.offsetTop === all[0].offsetTop).length")
    assert page.evaluate(focused) == ids[1 + row]
    page.keyboard.press("End")
    assert page.evaluate(focused) == ids[-1]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    page.wait_for_selector("#chips .minus")
    at.settled()
    page.locator("#hits .hit").first.focus()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    at.true("!document.querySelector('#detail').open")
    page.locator("#hits .hit").first.focus()
    page.keyboard.press("Enter")
    at.true("!document.querySelector('#chips .minus')")


def the_newest_question_wins(at):
    """Searches and pictures that became ready late once overwrote what was asked after them, and a box
    that was cleared during a search left its hits pale for ever."""
    page = at.page
    at.open("?collection=demo")
    page.get_by_role("heading", name="Type a few words").wait_for()
    slow = {"cat", "dog"}

    def late(route):
        if json.loads(route.request.post_data).get("text") in slow:
            page.wait_for_timeout(700)
        try:
            route.continue_()
        except Exception:
            pass  # The page has given it up.

    page.route("**/search", late)
    busy = "document.querySelector('#hits').matches('.stale, [aria-busy]')"
    page.locator("#text").fill("cat")
    at.true(busy)
    page.locator("#text").fill("")
    page.wait_for_timeout(1200)
    assert not page.evaluate(busy), "the cleared box waits for nothing"
    assert page.locator("#hits > li").count() == 0
    page.locator("#text").fill("dog")
    at.true(busy)
    page.locator("#text").fill(WORD)
    page.wait_for_selector(f"#hits > li:first-child[data-id='{POINT}']")
    page.wait_for_timeout(1200)
    assert at.ids()[0] == POINT
    # A picture that is slow to be made smaller.
    page.evaluate(
        "() => { window.createImageBitmap = async (file) => {"
        "  if (file.name === 'slow.png') await new Promise((done) => setTimeout(done, 500));"
        "  throw new Error('not made smaller'); }; }")
    picture = at.server.picture("demo", POINT)
    drop(page, "#drop-new", "slow.png", picture)
    drop(page, "#drop-new", "fast.png", picture)
    page.get_by_text("fast.png").wait_for()
    page.wait_for_timeout(900)
    assert page.locator("#chips .chip-name").all_inner_texts() == ["fast.png"]
    page.locator("#file").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    page.get_by_role("heading", name="That is not a picture").wait_for()


def more_results_follow_and_errors_are_said(at):
    page = at.page
    at.open("?collection=demo&q=animal")
    at.settled()
    first = at.ids()
    page.get_by_role("button", name="Show more").click()
    at.true(f"document.querySelectorAll('#hits > li').length > {len(first)}")
    assert at.ids()[:len(first)] == first and len(set(at.ids())) == len(at.ids())
    at.expected.append("400")
    page.route("**/search", lambda route: route.fulfill(
        status=400, json={"error": {"code": "x", "message": "<b>" + "x" * 300 + "</b>"}}))
    page.locator("#text").fill("bad")
    page.get_by_role("heading", name="Something went wrong").wait_for()
    assert page.locator("#found-text b").count() == 0, "what the server says is no HTML"
    at.fine("search-error")


FLOWS = [
    words_find_their_picture_and_the_address_keeps_them, a_search_without_an_answer_says_so,
    a_click_finds_more_like_it_and_back_returns, several_things_are_asked_with_plus_and_minus,
    pictures_are_dropped_pasted_and_picked, shared_and_specific_are_explained_and_compared,
    near_duplicates_are_folded_and_unfolded, filters_of_every_kind_narrow_a_search,
    the_grid_is_walked_by_keys, the_newest_question_wins, more_results_follow_and_errors_are_said,
]
