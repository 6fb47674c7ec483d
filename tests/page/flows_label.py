"""Labels: typed, and taught."""

from stage import until


def files(at, *points):
    return [{"name": f"{p}.png", "mimeType": "image/png", "buffer": at.server.picture("demo", p)}
            for p in points]


def typed_labels_get_bars(at):
    page = at.page
    at.open("?collection=demo&view=classify")
    page.get_by_text("Pictures that you add appear here").wait_for()
    at.fine("classify-empty")
    page.get_by_label("Labels, one a line").fill("rainbow\nred apple\ncactus")
    page.locator("#classify-file").set_input_files(files(at, "1f308", "1f34e", "1f335"))
    at.true("document.querySelectorAll('#judged .verdict').length === 3")
    said = page.locator("#judged .verdict").all_inner_texts()
    assert said == ["rainbow", "red apple", "cactus"], said
    first = page.locator("#judged > li").first
    parts = [int(p.split()[0]) for p in first.locator(".bar-part").all_inner_texts()]
    assert len(parts) == 3 and 98 <= sum(parts) <= 102, parts
    at.true("location.search.includes('label=rainbow')")
    at.fine("classify")
    # Other labels are asked about at once; the address brings the labels back.
    page.get_by_label("Labels, one a line").fill("fruit\nplant")
    at.true("document.querySelectorAll('#judged .verdict').length === 3"
            " && [...document.querySelectorAll('#judged .verdict')].every(v =>"
            " ['fruit', 'plant', 'None of these'].includes(v.textContent))")
    page.get_by_role("button", name="Remove 1f308.png").click()
    assert page.locator("#judged > li").count() == 2
    page.reload()
    at.true("document.querySelector('#labels').value === 'fruit\\nplant'")


def teach(at, name):
    """Opens the view and teaches two labels with four examples each."""
    page = at.page
    # An earlier run that failed may have left it.
    heads = at.server.call("GET", "/v1/collections/demo/heads")["heads"]
    if any(head["name"] == name for head in heads):
        at.server.call("DELETE", f"/v1/collections/demo/heads/{name}")
    at.open("?collection=demo&view=teach")
    page.get_by_label("Name of what is learned").fill(name)
    for label in ["dog", "fruit"]:
        page.get_by_label("New label").fill(label)
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("Find examples").last.fill(label)
        page.wait_for_timeout(500)
        at.settled("#teach-hits")
        free = page.locator("#teach-hits > li:not(.taught)")
        for _ in range(4):
            free.first.locator(".hit").click()
    counts = page.locator(".class-count").all_inner_texts()
    assert counts == ["4", "4"], counts


def train(page):
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("heading", name="Version 1, learned in").wait_for()


def a_head_is_taught_and_corrected(at):
    page = at.page
    name = f"mine-{at.size}"
    teach(at, name)
    at.fine("teach-examples")
    train(page)
    learned = page.locator("#learned").inner_text()
    assert "Right for" in learned and "surely between" in learned, learned
    at.fine("teach-learned")
    page.get_by_role("button", name="Show where it is unsure").click()
    page.locator("#teach-status", has_text="It is least sure of these").wait_for()
    at.settled("#teach-hits")
    assert all("?" in n for n in at.names("#teach-hits"))
    # What is wrong is put right with a click, and taught again.
    page.locator("#teach-hits .hit").first.click()
    assert page.locator(".class-count").all_inner_texts() == ["4", "5"]
    page.get_by_role("button", name="Train again").click()
    page.get_by_role("heading", name="Version 2, learned in").wait_for()
    # It is asked where typed labels are.
    page.get_by_role("link", name="Classify").click()
    page.get_by_label("Ask", exact=True).select_option(name)
    page.locator("#classify-file").set_input_files(files(at, "1f34e"))
    page.locator("#judged .verdict").wait_for()
    at.fine("classify-head")
    labels = page.locator("#judged .bar-name").all_inner_texts()
    assert labels == ["fruit", "dog"], labels
    assert f"head={name}" in page.url
    at.server.call("DELETE", f"/v1/collections/demo/heads/{name}")


def a_head_is_applied_as_a_job_and_filtered_by(at):
    page = at.page
    name = f"kind-{at.size}"
    teach(at, name)
    train(page)
    field = page.get_by_label("Write its labels into the field")
    apply = page.get_by_role("button", name="Apply to the collection")
    replace = page.get_by_role("button", name="Replace it")
    # What is in a field already is not replaced unasked: the names of all pictures once were.
    field.fill("name")
    apply.click()
    replace.wait_for()
    assert "have a field name already" in page.locator("#learned").inner_text()
    at.fine("teach-taken")
    assert at.server.call("GET", "/v1/collections/demo/items/1f308")["payload"]["name"] == "rainbow"
    field.fill("taught")
    apply.click()
    said = page.get_by_text("Search can now filter by taught.")
    # The flow at another size may have written it.
    replace.or_(said).locator("visible=true").first.wait_for()
    page.wait_for_timeout(500)
    if replace.is_visible():
        replace.click()
    page.locator("#learned .job").wait_for()
    said.wait_for()
    at.fine("teach-applied")
    # It can: the sentence was once all there was, and the field was not declared.
    with page.expect_response(lambda r: r.url.endswith("/search")) as found:
        page.get_by_role("button", name="Search where taught is fruit").click()
    assert found.value.request.post_data_json["filter"] == {"must": [{"field": "taught", "contains": "fruit"}]}
    hits = found.value.json()["hits"]
    assert hits and all(hit["payload"]["taught"] == "fruit" for hit in hits), hits
    at.settled()
    page.locator("#refine summary").click()
    assert page.get_by_label("taught contains").input_value() == "fruit"
    at.fine("search-taught")
    jobs = at.server.call("GET", "/v1/jobs")["jobs"]
    assert jobs and jobs[-1]["state"] == "done" or jobs[0]["state"] == "done", jobs
    page.get_by_role("link", name="Health").click()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.locator("#health .job").first.wait_for()
    at.fine("health-jobs")
    # A job that goes on is ended by its button.
    page.get_by_role("link", name="Teach").click()
    page.get_by_role("button", name="Apply to the collection").click()
    cancel = page.locator("#learned .job").get_by_role("button", name="Cancel")
    try:
        cancel.click(timeout=2000)
    except Exception:
        pass  # It was done before.
    until(lambda: all(j["state"] not in ("running", "waiting", "queued")
                      for j in at.server.call("GET", "/v1/jobs")["jobs"]), "the jobs are over")
    at.server.call("DELETE", f"/v1/collections/demo/heads/{name}")


def what_was_taught_is_kept_listed_and_taken_back(at):
    """Examples were lost by a reload, and heads could not be reached after it."""
    page = at.page
    name = f"kept-{at.size}"
    teach(at, name)
    train(page)
    page.get_by_role("button", name="Train again").click()
    page.get_by_role("heading", name="Version 2, learned in").wait_for()
    # A name that is none is not sent; the head that was trained stays the one that is asked.
    page.get_by_label("Name of what is learned").fill("")
    page.get_by_role("button", name="Train again").click()
    assert page.evaluate("!document.querySelector('#head-name').validity.valid")
    page.get_by_role("button", name="Show where it is unsure").click()
    page.locator("#teach-status", has_text="It is least sure of these").wait_for()
    page.reload()
    at.true("[...document.querySelectorAll('.class-count')].map(c => c.textContent).join() === '4,4'")
    row = page.locator("#heads-list > li", has_text=name)
    assert "dog, fruit; version 2" in row.inner_text(), row.inner_text()
    at.fine("teach-heads")
    page.get_by_role("button", name=f"Go back to version 1 of {name}").click()
    row.get_by_text("version 1").wait_for()
    page.get_by_role("button", name=f"Classify with {name}").click()
    page.get_by_role("heading", name="Which label fits?").wait_for()
    at.true(f"document.querySelector('#with-head').value === '{name}'")
    page.go_back()
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_role("button", name=f"Delete {name} for good").click()
    row.wait_for(state="detached")
    assert name not in [head["name"] for head in at.server.call("GET", "/v1/collections/demo/heads")["heads"]]


FLOWS = [
    typed_labels_get_bars, a_head_is_taught_and_corrected, a_head_is_applied_as_a_job_and_filtered_by,
    what_was_taught_is_kept_listed_and_taken_back,
]
