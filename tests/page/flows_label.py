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


def a_head_is_taught_and_corrected(at):
    page = at.page
    name = f"mine-{at.size}"
    teach(at, name)
    at.fine("teach-examples")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("heading", name="Version 1, learned in").wait_for()
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
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_role("heading", name="Version 1, learned in").wait_for()
    page.get_by_label("Write its labels into the field").fill("taught")
    page.get_by_role("button", name="Apply to the collection").click()
    page.locator("#learned .job").wait_for()
    page.get_by_text("Search can now filter by taught.").wait_for()
    at.fine("teach-applied")
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


FLOWS = [
    typed_labels_get_bars, a_head_is_taught_and_corrected, a_head_is_applied_as_a_job_and_filtered_by,
]
