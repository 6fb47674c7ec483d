"""Ways through the page: back and reloads, keys of either kind, and what is dropped by mistake."""

from flows_search import POINT, SHOP, WORD, drop, shop
from stage import until

DOG = "1f436"


def a_picture_that_is_gone_is_said_and_never_another(at):
    """The address named pictures 1, 2, 3 from each load on, so that back searched with another picture; and
    after a reload a search forgot its pictures without a word."""
    page = at.page
    at.open("?collection=demo")
    page.get_by_role("heading", name="Type a few words").wait_for()
    drop(page, "#drop-new", "dog.png", at.server.picture("demo", DOG))
    page.get_by_text("dog.png").wait_for()
    at.settled()
    dog = page.url
    page.locator("#hits .hit").first.click()
    at.true("!document.querySelector('#chips').textContent.includes('dog.png')")
    at.settled()
    page.reload()
    at.settled()
    drop(page, "#drop-new", "rain.png", at.server.picture("demo", POINT))
    page.get_by_text("rain.png").wait_for()
    page.go_back()
    at.settled()
    page.go_back()
    page.get_by_role("heading", name="The picture is gone").wait_for()
    assert page.locator("#chips > li").count() == 0 and "p=" not in page.url, page.url
    assert dog != page.url
    at.fine("search-gone")
    page.locator("#text").fill(WORD)
    at.settled()
    assert page.locator("#note").is_hidden()


def back_returns_to_the_collection(at):
    page = at.page
    shop(at.server)
    at.open()
    page.get_by_role("heading", name="Type a few words").wait_for()
    first = page.locator("#collection").input_value()
    page.locator("#collection").select_option(SHOP)
    page.get_by_text(f"6 pictures in {SHOP}").wait_for()
    page.go_back()
    page.locator("#status", has_text=f"in {first}").wait_for()
    assert page.locator("#collection").input_value() == first


def keys_keep_their_place_among_new_results(at):
    page = at.page
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    place = "[...document.querySelectorAll('#hits > li')].indexOf(document.activeElement.closest('#hits > li'))"
    before = at.ids()
    page.locator("#hits .hit").nth(3).focus()
    page.keyboard.press("+")
    until(lambda: at.ids() and at.ids() != before, "other results")
    at.settled()
    assert page.evaluate(place) == 3
    page.keyboard.press("Enter")
    at.true("document.querySelectorAll('#chips > li').length === 1")
    at.settled()
    until(lambda: page.evaluate(place) == 0, "the first result has the focus")


def a_slash_and_a_wrong_file_leave_the_map_in_place(at):
    page = at.page
    at.open("?collection=demo&view=map&method=pca")
    page.locator("#near > li").first.wait_for()
    drop(page, "#drop-new", "a.txt", b"words", "text/plain")
    page.get_by_role("heading", name="That is not a picture").wait_for()
    assert page.locator("#map").is_visible() and "view=map" in page.url
    page.keyboard.press("/")
    page.locator("#text").fill(WORD)
    at.settled()
    assert "view=" not in page.url
    page.go_back()
    page.locator("#map").wait_for()
    assert "view=map" in page.url


def a_wrong_file_leaves_the_results(at):
    page = at.page
    at.open(f"?collection=demo&q={WORD}")
    at.settled()
    before = at.ids()
    for name, kind in [("a.txt", "text/plain"), ("a.svg", "image/svg+xml")]:
        drop(page, "#drop-new", name, b"<svg/>", kind)
        page.get_by_role("heading", name="That is not a picture").wait_for()
        assert at.ids() == before
    # What only looks like a picture is told by the server.
    at.expected.append("422")
    drop(page, "#drop-new", "bad.png", b"\x89PNG\r\n\x1a\nnone")
    page.get_by_role("heading", name="The picture cannot be read").wait_for()
    at.true("!document.querySelector('#chips img')")
    at.fine("search-unreadable")


def a_server_that_comes_back_is_seen(at):
    page = at.page
    at.expected.append("ERR_FAILED")
    at.open("?collection=demo&view=classify&label=dog&label=fruit")
    page.get_by_text("Pictures that you add appear here").wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    file = {"name": "dog.png", "mimeType": "image/png", "buffer": at.server.picture("demo", DOG)}
    page.locator("#classify-file").set_input_files(file)
    again = page.get_by_role("button", name="Try again")
    again.wait_for()
    at.fine("classify-unanswered")
    page.get_by_role("link", name="Map").click()
    silent = page.locator("#map-wait", has_text="The server does not answer.")
    silent.wait_for()
    page.unroute("**/v1/**")
    silent.wait_for(state="hidden")


def a_key_is_asked_for_and_sent(at):
    page = at.page
    at.expected.append("401")
    sent = []

    def guard(route):
        given = route.request.headers.get("authorization")
        sent.append((route.request.url, given))
        if given == "Bearer right":
            return route.continue_()
        return route.fulfill(status=401, json={"error": {"code": "no_key", "message": "a key is needed"}})

    page.route("**/v1/**", guard)
    at.open(f"?collection=demo&q={WORD}")
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    dialog.wait_for()
    at.fine("key")
    # Who has none at hand can give it later.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Give the key").click()
    dialog.wait_for()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("That key is not accepted.").wait_for()
    page.get_by_label("Key", exact=True).fill("right")
    page.keyboard.press("Enter")
    at.settled()
    at.true("document.querySelector('#hits img').naturalWidth > 0")
    source = page.locator("#hits img").first.get_attribute("src")
    assert source.startswith("blob:"), "pictures are fetched with the key"
    assert any(url.endswith("/image") and key == "Bearer right" for url, key in sent)
    assert not any("right" in url for url, _ in sent)
    page.reload()
    at.settled()
    assert not dialog.is_visible(), "the tab keeps the key"


FLOWS = [
    a_picture_that_is_gone_is_said_and_never_another, back_returns_to_the_collection,
    keys_keep_their_place_among_new_results, a_slash_and_a_wrong_file_leave_the_map_in_place,
    a_wrong_file_leaves_the_results, a_server_that_comes_back_is_seen, a_key_is_asked_for_and_sent,
]
