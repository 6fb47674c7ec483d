// Teach: labels, examples that are clicked, a head that learns them, and what is done with it.
import { inCollection, send } from "./api.js";
import { announce, at, button, count, element, nameOf, note, percent, roving } from "./dom.js";
import { bar } from "./bars.js";
import { follow, line } from "./jobs.js";
import { item, show } from "./pictures.js";
import { busy, tile } from "./results.js";

const TYPING_PAUSE_MS = 250;
const SHOWN = 24;
// What one head is taught here; more comes through the API.
const MOST_LABELS = 30;
const MOST_EXAMPLES = 64;

let page = null;
let tiles = null;
let typing = 0;
let running = null;
let chosen = "";
let collection = "";
// Label to its examples, by id.
let classes = new Map();
let applying = 0;

export function start(context) {
  page = context;
  tiles = roving(at("teach-hits"), (child) => child.querySelector(".hit"));
  at("label-form").addEventListener("submit", (event) => {
    event.preventDefault();
    addLabel(at("new-label").value.trim());
  });
  at("teach-search").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  at("teach-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, TYPING_PAUSE_MS);
  });
  at("train-form").addEventListener("submit", (event) => {
    event.preventDefault();
    train();
  });
}

export function open() {
  note("note");
  const name = page.collection()?.name || "";
  if (name !== collection) {
    [collection, classes, chosen] = [name, new Map(), ""];
    at("learned").hidden = true;
    at("teach-hits").replaceChildren();
    at("teach-status").textContent = "";
  }
  showClasses();
}

export function leave() {
  running?.abort();
  clearTimeout(typing);
}

function addLabel(label) {
  if (!label || classes.size >= MOST_LABELS) return;
  if (!classes.has(label)) classes.set(label, new Map());
  chosen = label;
  at("new-label").value = "";
  showClasses();
  // The label is what is looked for first.
  if (!at("teach-text").value.trim() || !at("teach-hits").children.length) {
    at("teach-text").value = label;
    find();
  } else at("teach-text").focus();
}

function showClasses() {
  at("classes").replaceChildren(...[...classes].map(([label, examples]) => {
    const row = element("div", "class");
    const radio = element("input");
    [radio.type, radio.name, radio.checked] = ["radio", "class", label === chosen];
    radio.addEventListener("change", () => {
      chosen = label;
      showClasses();
      [...document.getElementsByName("class")].find((r) => r.checked)?.focus();
    });
    const named = element("label", "class-name");
    named.append(radio, element("span", "", label), element("span", "class-count", String(examples.size)));
    const remove = button("gone", "\u00d7", `Remove the label ${label}`, () => {
      classes.delete(label);
      if (chosen === label) chosen = classes.keys().next().value || "";
      showClasses();
      at("new-label").focus();
    });
    const strip = element("ul", "examples");
    strip.setAttribute("aria-label", `Examples of ${label}`);
    strip.append(...[...examples.values()].map((hit) => example(hit, label)));
    row.append(named, remove, strip);
    return row;
  }));
  for (const listed of at("teach-hits").children) mark(listed);
  ready();
}

function example(hit, label) {
  const listed = element("li");
  const off = button("example", undefined, `${nameOf(hit)} is no ${label}: take it out`, () => {
    classes.get(label)?.delete(hit.id);
    showClasses();
  });
  if (hit.image_url) {
    const img = element("img");
    img.alt = "";
    show(img, hit.image_url);
    off.append(img);
  } else off.textContent = nameOf(hit);
  listed.append(off);
  return listed;
}

const labelOf = (id) => [...classes].find(([, examples]) => examples.has(id))?.[0];

function mark(listed) {
  const label = labelOf(listed.dataset.id);
  const main = listed.querySelector(".hit");
  listed.classList.toggle("taught", Boolean(label));
  main.setAttribute("aria-pressed", String(Boolean(label)));
  const badge = listed.querySelector(".badge");
  badge.hidden = !label;
  badge.textContent = label || "";
}

function ready() {
  const full = [...classes.values()].filter((examples) => examples.size).length;
  at("train").disabled = full < 2;
}

function toggle(hit) {
  if (!chosen) {
    at("teach-status").textContent = "Name a label first; a click then gives it.";
    at("new-label").focus();
    return;
  }
  const had = labelOf(hit.id);
  if (had) classes.get(had).delete(hit.id);
  const mine = classes.get(chosen);
  if (had !== chosen && mine.size < MOST_EXAMPLES) mine.set(hit.id, hit);
  showClasses();
  announce(had === chosen ? `${nameOf(hit)} taken out` : `${nameOf(hit)} is an example of ${chosen}`);
}

async function find() {
  const text = at("teach-text").value.trim();
  if (!text || !collection) return;
  await list(async (signal) => {
    const body = { text, k: SHOWN, target: "image", collapse: 0.98 };
    const { hits } = await send("POST", inCollection(collection, "/search"), body, signal);
    return { hits, say: `${count(hits.length, "picture", "pictures")}. A click makes one an example.` };
  });
}

// Shows what `asked` finds; the newest wins.
async function list(asked) {
  running?.abort();
  const controller = new AbortController();
  running = controller;
  busy(at("teach-hits"), true);
  try {
    const { hits, say } = await asked(controller.signal);
    if (running !== controller) return;
    at("teach-hits").replaceChildren(...hits.map(choice));
    tiles.reset();
    at("teach-status").textContent = say;
    announce(say);
  } catch (error) {
    if (running === controller && error.name !== "AbortError") {
      at("teach-status").textContent = error.message;
    }
  } finally {
    if (running === controller) busy(at("teach-hits"), false);
  }
}

function choice(hit) {
  const listed = tile(hit, { open: toggle, says: "Example of the chosen label" });
  const badge = element("span", "badge");
  listed.querySelector(".hit").append(badge);
  if (hit.guess) listed.querySelector(".caption").replaceChildren(element("span", "name", hit.guess));
  mark(listed);
  return listed;
}

const headPath = (rest = "") =>
  inCollection(collection, `/heads/${encodeURIComponent(at("head-name").value.trim())}${rest}`);

async function train() {
  const examples = [...classes].flatMap(([label, some]) => [...some.keys()].map((id) => ({ label, id })));
  const aspect = page.model()?.spaces?.specific_image_dim ? "both" : "shared";
  at("train").disabled = true;
  at("train").textContent = "Training\u2026";
  try {
    showLearned(await send("PUT", headPath(), { examples, aspect, start: "zero_shot" }));
  } catch (error) {
    at("learned").hidden = false;
    at("learned").replaceChildren(element("p", "wrong", error.message));
    announce(error.message);
  } finally {
    at("train").textContent = "Train again";
    ready();
  }
}

function showLearned(head) {
  const box = at("learned");
  const { accuracy, interval, per_label: each = [] } = head.held_out || {};
  const say = typeof accuracy === "number"
    ? `Right for ${percent(accuracy)} of examples that it had not seen`
      + (interval ? `, surely between ${percent(interval[0])} and ${percent(interval[1])}.` : ".")
    : "Too few examples to say how often it is right.";
  const rows = element("ul", "bars");
  for (const { label, recall } of each) {
    if (typeof recall === "number") rows.append(bar(label, recall));
  }
  const title = element("h3", "", `Version ${head.version}, learned in ${head.took_ms.toFixed(0)} ms`);
  const correct = button("button", "Show where it is unsure", undefined, suggest);
  const field = element("input");
  [field.value, field.maxLength, field.id] = [at("head-name").value.trim(), 64, "apply-field"];
  const label = element("label", "above", "Write its labels into the field");
  label.htmlFor = field.id;
  const job = element("div");
  const apply = button("button", "Apply to the collection", undefined, () => applyTo(field.value.trim(), job, apply));
  box.replaceChildren(title, element("p", "say", say), rows, correct, label, field, apply, job);
  box.hidden = false;
  announce(say);
}

function suggest() {
  return list(async (signal) => {
    const { items } = await send("POST", headPath("/suggest"), { k: SHOWN }, signal);
    const found = await Promise.all(items.map(described));
    return { hits: found, say: "It is least sure of these. Choose a label, click what is one, and train again." };
  });
}

async function described({ id, labels }) {
  const [best] = [...(labels || [])].sort((a, b) => b.probability - a.probability);
  const guess = best ? `${best.label}? ${percent(best.probability)}` : undefined;
  return { ...(await item(collection, id)), guess };
}

async function applyTo(field, box, apply) {
  applying += 1;
  const mine = applying;
  const failed = (error) => box.replaceChildren(element("p", "wrong", error.message));
  apply.disabled = true;
  try {
    const { job } = await send("POST", headPath("/apply"), { field });
    let told = null;
    const over = await follow(job, (now) => {
      if (told) return told.tell(now);
      told = line(now, failed);
      box.replaceChildren(told.row);
    }, () => mine !== applying);
    if (mine !== applying) return;
    await page.reload();
    announce(`Applying: ${over.state}`);
    if (over.state === "done") box.append(element("p", "say", `Search can now filter by ${field}.`));
  } catch (error) {
    failed(error);
  } finally {
    apply.disabled = false;
  }
}
