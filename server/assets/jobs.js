// Long work of the server, with progress and a way to stop it.
import { call, inCollection, send, soon } from "./api.js";
import { announce, button, count, element } from "./dom.js";
import { nothing, toAddress } from "./query.js";

const EVERY_MS = 500;
// Items that are looked at for a field that is not declared; the most hits of one search.
const MOST_LOOKED_AT = 1000;
// Least probability of a label that is written, unless another is given.
const LEAST_PERCENT = 60;
// Labels by which the search is offered to be filtered.
const MOST_OFFERED = 6;
// Of a declared field: docs/filters.md.
const MOST_NAME_BYTES = 128;
const OVER = new Set(["done", "failed", "cancelled", "canceled"]);

export const isOver = (job) => OVER.has(job.state);

// Asks until the job is over, or `stopped()`; `told(job)` gets each state.
export async function follow(id, told, stopped = () => false) {
  for (;;) {
    const job = await call(`/v1/jobs/${encodeURIComponent(id)}`);
    if (stopped()) return job;
    told(job);
    if (isOver(job)) return job;
    await soon(EVERY_MS);
  }
}

export const cancel = (id) => call(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });

// A line about a job that can be told again.
export function line(job, failed) {
  const row = element("div", "job");
  const say = element("p", "job-say");
  const meter = element("progress");
  meter.setAttribute("aria-label", `Progress of ${job.kind}`);
  const stop = button("button", "Cancel", undefined, async () => {
    stop.disabled = true;
    await cancel(job.id).catch(failed);
  });
  row.append(say, meter, stop);
  const tell = (now) => {
    const of = now.total ? ` of ${now.total.toLocaleString("en")}` : "";
    const some = now.failed ? `, ${now.failed.toLocaleString("en")} failed` : "";
    say.textContent = `${now.kind}: ${now.state}, ${(now.done || 0).toLocaleString("en")}${of}${some}`
      + (now.error ? `. ${typeof now.error === "string" ? now.error : now.error.message || ""}` : "");
    if (now.total) [meter.max, meter.value] = [now.total, now.done || 0];
    stop.hidden = meter.hidden = isOver(now);
  };
  tell(job);
  return { row, tell };
}

// Fields that were written here: to write them again asks nothing.
const written = new Set();
let applying = 0;

// A form that writes what a head says into a field of every item, and then offers to filter by it.
export function applyForm(page, head, labels) {
  const form = element("form", "apply");
  const field = element("input");
  Object.assign(field, { value: head, required: true, autocomplete: "off", spellcheck: false });
  const least = element("input");
  Object.assign(least, { type: "number", min: 0, max: 100, required: true, value: LEAST_PERCENT });
  const labeled = (say, made) => {
    const label = element("label", "above", say);
    label.append(made);
    return label;
  };
  const apply = element("button", "button", "Apply to the collection");
  const box = element("div");
  form.append(labeled("Write its labels into the field", field),
    labeled("Where it is at least so many percent sure", least), apply, box);
  field.addEventListener("input", () => field.setCustomValidity(""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = { head, labels, field: field.value.trim(), least: least.valueAsNumber / 100 };
    const bytes = new TextEncoder().encode(asked.field).length;
    if (!bytes || bytes > MOST_NAME_BYTES) {
      field.setCustomValidity(`The name of a field has 1 to ${MOST_NAME_BYTES} bytes.`);
      field.reportValidity();
      return;
    }
    apply.disabled = true;
    await checkAndApply(page, asked, box).catch((error) => failed(box, error));
    apply.disabled = false;
  });
  return form;
}

function failed(box, error) {
  box.replaceChildren(element("p", "wrong", error.message));
  announce(error.message);
}

async function checkAndApply(page, asked, box) {
  const collection = page.collection();
  const kind = collection.fields?.[asked.field];
  if (kind && kind !== "keyword") {
    throw new Error(`The field ${asked.field} is declared as ${kind}, and labels are words. Take another name.`);
  }
  const found = written.has(`${collection.name}/${asked.field}`) ? null : await holders(collection, asked, kind);
  if (!found?.some) return applyTo(page, asked, box);
  const say = `${found.some.toLocaleString("en")} of ${count(found.of, "item", "items")}${found.all ? "" : " looked at"} `
    + `have a field ${asked.field} already. The label takes the place of what it holds, for good.`;
  const replace = button("button", "Replace it", undefined, async () => {
    replace.disabled = true;
    await applyTo(page, asked, box).catch((error) => failed(box, error));
  });
  box.replaceChildren(element("p", "say wrong", say), replace);
  announce(say);
}

// How many items have a value in a field. Only of a declared one the server can count them all.
async function holders(collection, { field, labels }, declared) {
  const { images, texts, items } = collection.stats;
  const body = { text: labels[0], k: declared ? 1 : MOST_LOOKED_AT, confidence: false, explain: Boolean(declared) };
  if (images && texts) body.target = "both";
  if (declared) body.filter = { must: [{ field, exists: true }] };
  const { hits, explain } = await send("POST", inCollection(collection.name, "/search"), body);
  if (declared) return { some: explain.shards.reduce((n, shard) => n + shard.matching, 0), of: items, all: true };
  const some = hits.filter((hit) => (hit.payload[field] ?? null) !== null).length;
  return { some, of: hits.length, all: hits.length === items };
}

async function applyTo(page, { head, labels, field, least }, box) {
  applying += 1;
  const mine = applying;
  const { name, fields } = page.collection();
  // First: where the values of the field cannot be filtered by, nothing is written.
  if (!fields?.[field]) await send("PUT", inCollection(name), { fields: { [field]: "keyword" } });
  const body = { field, min_probability: least };
  const { job } = await send("POST", inCollection(name, `/heads/${encodeURIComponent(head)}/apply`), body);
  written.add(`${name}/${field}`);
  let told = null;
  const over = await follow(job, (now) => {
    if (told) return told.tell(now);
    told = line(now, (error) => failed(box, error));
    box.replaceChildren(told.row);
  }, () => mine !== applying);
  if (mine !== applying) return;
  await page.reload();
  announce(`Applying: ${over.state}`);
  if (over.state !== "done" || !page.collection().fields?.[field]) return;
  const { below_min_probability: unsure = 0 } = over.result || {};
  const left = unsure ? ` ${count(unsure, "item was", "items were")} left out as unsure.` : "";
  const offers = element("p", "row wrap");
  offers.append(...labels.slice(0, MOST_OFFERED).map((label) => button("small", label, `Search where ${field} is ${label}`, () => {
    const address = new URLSearchParams({ collection: name });
    toAddress({ ...nothing(), text: label, filters: [{ op: "contains", field, value: label }] }, address);
    page.visit(address);
  })));
  box.append(element("p", "say", `Search can now filter by ${field}.${left} Try it:`), offers);
}
