// Teach: labels, examples that are clicked, a head that learns them, and what is done with it.
import { call, inCollection, send } from "./api.js";
import { announce, at, button, count, element, nameOf, note, percent, roving } from "./dom.js";
import { bar } from "./bars.js";
import { applyForm } from "./jobs.js";
import { item, show } from "./pictures.js";
import { busy, tile } from "./results.js";

const TYPING_PAUSE_MS = 250;
const SHOWN = 24;
// Letters of a text that stand for it.
const MOST_LETTERS = 120;
const STORED = "diptych-teach";
const NAME_FIRST = "Name a label first; a click then gives it.";
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
// What the search box was filled with for a label.
let filled = "";
// The head that was trained last.
let learned = "";

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
    [collection, classes] = [name, restored(name)];
    chosen = [...classes.keys()].at(-1) || "";
    at("learned").hidden = true;
    at("teach-hits").replaceChildren();
    at("teach-status").textContent = "";
  }
  for (const control of at("label-form").querySelectorAll("input, button")) control.disabled = !name;
  at("teach-text").disabled = !name;
  at("teach-empty").textContent = name ? "Examples to click appear here, once a label is named or something is looked for."
    : "There is no collection to teach from. Index a folder of pictures, then reload.";
  showClasses();
  listHeads();
}

// Labels and examples outlive a reload, in this tab.
function restored(name) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(`${STORED}-${name}`)) || [];
    return new Map(kept.map(([label, hits]) => [label, new Map(hits.map((hit) => [hit.id, hit]))]));
  } catch {
    return new Map();
  }
}

function keep() {
  const part = ({ id, modality, image_url, ...hit }) =>
    ({ id, modality, image_url, payload: { name: nameOf({ id, ...hit }).slice(0, MOST_LETTERS) } });
  const kept = [...classes].map(([label, hits]) => [label, [...hits.values()].map(part)]);
  try {
    sessionStorage.setItem(`${STORED}-${collection}`, JSON.stringify(kept));
  } catch {
    // A full store keeps what it had.
  }
}

export function leave() {
  running?.abort();
  clearTimeout(typing);
}

function addLabel(label) {
  if (!label) return;
  if (classes.size >= MOST_LABELS && !classes.has(label)) return say(`One head is taught at most ${MOST_LABELS} labels here.`);
  if (!classes.has(label)) classes.set(label, new Map());
  chosen = label;
  at("new-label").value = "";
  showClasses();
  // The label is what is looked for first, unless other words were typed.
  const typed = at("teach-text").value.trim();
  if (!typed || typed === filled || !at("teach-hits").children.length) {
    filled = label;
    at("teach-text").value = label;
    find();
  } else {
    say(`A click makes a picture an example of ${label}.`);
    at("teach-text").focus();
  }
}

function say(text) {
  at("teach-status").textContent = text;
  announce(text);
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
  at("teach-empty").hidden = at("teach-hits").children.length > 0;
  ready();
  if (collection) keep();
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
  at("train-say").hidden = full >= 2;
}

function toggle(hit) {
  if (!chosen) {
    say(NAME_FIRST);
    at("new-label").focus();
    return;
  }
  if (at("teach-status").textContent === NAME_FIRST) at("teach-status").textContent = "";
  const had = labelOf(hit.id);
  if (had) classes.get(had).delete(hit.id);
  const mine = classes.get(chosen);
  const full = had !== chosen && mine.size >= MOST_EXAMPLES;
  if (had !== chosen && !full) mine.set(hit.id, hit);
  showClasses();
  if (full) return say(`A label has at most ${MOST_EXAMPLES} examples here.`);
  announce(had === chosen ? `${nameOf(hit)} taken out` : `${nameOf(hit)} is an example of ${chosen}`);
}

async function find() {
  const text = at("teach-text").value.trim();
  if (!text || !collection) return;
  await list(async (signal) => {
    const body = { text, k: SHOWN, target: "image", collapse: 0.98 };
    const { hits } = await send("POST", inCollection(collection, "/search"), body, signal);
    return { hits, told: `${count(hits.length, "picture", "pictures")}. A click makes one an example.` };
  });
}

// Shows what `asked` finds; the newest wins.
async function list(asked) {
  running?.abort();
  const controller = new AbortController();
  running = controller;
  busy(at("teach-hits"), true);
  try {
    const { hits, told } = await asked(controller.signal);
    if (running !== controller) return;
    at("teach-hits").replaceChildren(...hits.map(choice));
    tiles.reset();
    at("teach-empty").hidden = hits.length > 0;
    say(told);
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

const headPath = (name, rest = "") => inCollection(collection, `/heads/${encodeURIComponent(name)}${rest}`);

async function train() {
  const name = at("head-name").value.trim();
  const examples = [...classes].flatMap(([label, some]) => [...some.keys()].map((id) => ({ label, id })));
  const aspect = page.model()?.spaces?.specific_image_dim ? "both" : "shared";
  at("train").disabled = true;
  at("train").textContent = "Training\u2026";
  try {
    showLearned(await send("PUT", headPath(name), { examples, aspect, start: "zero_shot" }));
    listHeads();
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
  learned = head.name;
  const box = at("learned");
  const { accuracy, interval, per_label: each = [] } = head.held_out || {};
  const told = typeof accuracy === "number"
    ? `Right for ${percent(accuracy)} of examples that it had not seen`
      + (interval ? `, surely between ${percent(interval[0])} and ${percent(interval[1])}.` : ".")
    : "Too few examples to say how often it is right.";
  const rows = element("ul", "bars");
  for (const { label, recall } of each) {
    if (typeof recall === "number") rows.append(bar(label, recall));
  }
  const title = element("h3", "", `Version ${head.version}, learned in ${head.took_ms.toFixed(0)} ms`);
  const correct = button("button", "Show where it is unsure", undefined, suggest);
  box.replaceChildren(title, element("p", "say", told), rows, correct, applyForm(page, learned, head.labels));
  box.hidden = false;
  announce(told);
}

function suggest() {
  return list(async (signal) => {
    const { items } = await send("POST", headPath(learned, "/suggest"), { k: SHOWN }, signal);
    const found = await Promise.all(items.map(described));
    return { hits: found, told: "It is least sure of these. Choose a label, click what is one, and train again." };
  });
}

async function described({ id, labels }) {
  const [best] = [...(labels || [])].sort((a, b) => b.probability - a.probability);
  const guess = best ? `${best.label}? ${percent(best.probability)}` : undefined;
  return { ...(await item(collection, id)), guess };
}

// The heads that the collection keeps.
async function listHeads() {
  const name = collection;
  const heads = name ? await call(inCollection(name, "/heads")).then((l) => l.heads).catch(() => []) : [];
  if (name !== collection) return;
  at("heads").hidden = !heads.length;
  at("heads-list").replaceChildren(...heads.map(headRow));
}

function headRow(head) {
  const row = element("li", "head");
  const { name, version, labels, accuracy } = head;
  const right = typeof accuracy === "number" ? `, right for ${percent(accuracy)}` : "";
  const facts = `${labels.slice(0, 6).join(", ")}${labels.length > 6 ? ` and ${labels.length - 6} more` : ""}; version ${version}${right}`;
  const wrong = element("p", "say wrong");
  const change = (method, path, body) => async () => {
    try {
      await send(method, path, body);
      await listHeads();
      announce(method === "DELETE" ? `${name} is deleted` : `Version ${body.version} of ${name} is in use`);
      (at("heads").hidden ? at("new-label") : at("heads")).focus();
    } catch (error) {
      wrong.textContent = error.message;
      announce(error.message);
    }
  };
  const open = button("small", "Classify", `Classify with ${name}`, () =>
    page.visit(new URLSearchParams({ collection, view: "classify", head: name })));
  const acts = [open, button("small", "Apply\u2026", `Apply ${name}`, () => {
    const shown = row.querySelector("form");
    if (shown) shown.remove();
    else row.append(applyForm(page, name, labels));
  })];
  const before = head.versions.filter((v) => v < version).at(-1);
  if (before) acts.push(button("small", `Back to version ${before}`, `Go back to version ${before} of ${name}`,
    change("POST", headPath(name, "/rollback"), { version: before })));
  const remove = change("DELETE", headPath(name));
  // Nothing brings it back, so it takes two clicks.
  const gone = button("small", "Delete", `Delete ${name}`, () => {
    if (gone.dataset.sure) return remove();
    gone.dataset.sure = "yes";
    gone.textContent = "Delete for good";
    gone.ariaLabel = `Delete ${name} for good`;
  });
  const tools = element("p", "row wrap");
  tools.append(...acts, gone);
  row.append(element("span", "class-name", name), element("p", "say", facts), tools, wrong);
  return row;
}
