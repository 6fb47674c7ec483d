// The page: one search at a time, the newest wins. Everything from the server is set as text,
// never as HTML.
"use strict";

const TYPING_PAUSE_MS = 180;
const HITS = 40;
// Pictures are made smaller before they are sent: no model looks at more pixels.
const SENT_SIDE = 1024;

const at = (id) => document.getElementById(id);
const page = {
  ask: at("ask"), text: at("text"), pick: at("pick"), file: at("file"), hint: at("hint"),
  query: at("query"), queryImage: at("query-image"), queryLabel: at("query-label"),
  clear: at("clear"), targets: at("targets"), status: at("status"), note: at("note"),
  noteTitle: at("note-title"), noteText: at("note-text"), noteCode: at("note-code"),
  hits: at("hits"), picker: at("picker"), collection: at("collection"), model: at("model"),
  drop: at("drop"),
};

let collections = [];
// What is asked: {text} | {image, label, preview} | {id, label, preview}; null before anything is.
let asked = null;
let running = null;
let typing = 0;
// Counts what was asked: what becomes ready later than a newer question is dropped.
let turn = 0;

async function call(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const body = await reply.json().catch(() => null);
  if (reply.ok) return body;
  const said = body && body.error && body.error.message;
  throw new Error(said || `The server answered ${reply.status}.`);
}

function note(title, text, code) {
  page.note.hidden = !title;
  page.noteTitle.textContent = title || "";
  page.noteText.textContent = text || "";
  page.noteCode.hidden = !code;
  page.noteCode.textContent = code || "";
}

function selected() {
  return collections.find((c) => c.name === page.collection.value) || collections[0];
}

async function start() {
  try {
    const [list, model] = await Promise.all([call("/v1/collections"), call("/v1/model")]);
    collections = list.collections;
    page.model.textContent = (model && model.name) || "";
  } catch (error) {
    note("Something went wrong", error.message);
    return;
  }
  page.collection.replaceChildren(...collections.map((c) => new Option(c.name, c.name)));
  page.picker.hidden = collections.length < 2;
  fromAddress();
}

// The query is in the address, so that back, forward and a bookmark work.
function fromAddress() {
  const address = new URLSearchParams(location.search);
  const wanted = address.get("collection");
  if (collections.some((c) => c.name === wanted)) page.collection.value = wanted;
  describeCollection();
  const [text, id] = [address.get("q"), address.get("like")];
  page.text.value = text || "";
  asked = text ? { text } : id ? { id, label: id } : null;
  search();
}

function toAddress() {
  const address = new URLSearchParams();
  if (collections.length > 1 && selected()) address.set("collection", selected().name);
  if (asked && asked.text) address.set("q", asked.text);
  if (asked && asked.id) address.set("like", asked.id);
  const query = address.toString();
  if (location.search.slice(1) === query) return;
  // Letters typed one after another are one step back; a click on a hit is another.
  const url = query ? `?${query}` : location.pathname;
  history[asked && asked.id ? "pushState" : "replaceState"](null, "", url);
}

function describeCollection() {
  const chosen = selected();
  const mixed = chosen && chosen.stats.images > 0 && chosen.stats.texts > 0;
  page.targets.hidden = !mixed;
}

// Ends whatever runs, and counts a new question.
function begin() {
  clearTimeout(typing);
  if (running) running.abort();
  running = null;
  page.hits.classList.remove("stale");
  page.hits.removeAttribute("aria-busy");
  turn += 1;
  return turn;
}

function idle() {
  const chosen = selected();
  page.hits.replaceChildren();
  if (!chosen) {
    page.status.textContent = "";
    note("Nothing to search yet", "There is no collection. Index a folder of pictures, then reload:",
      "diptych index ~/Pictures");
    return;
  }
  const { images, texts } = chosen.stats;
  const count = (n, one, many) => (n ? `${n.toLocaleString("en")} ${n === 1 ? one : many}` : "");
  const parts = [count(images, "picture", "pictures"), count(texts, "text", "texts")];
  const all = parts.filter(Boolean).join(" and ");
  page.status.textContent = all ? `${all} in ${chosen.name}` : "";
  if (all) note("Type a few words", "The nearest pictures appear while you type.");
  else note("This collection is empty", `Add pictures to ${chosen.name}, then reload.`);
}

async function search() {
  begin();
  showQuery();
  toAddress();
  const chosen = selected();
  if (!asked || !chosen) return idle();
  const controller = new AbortController();
  running = controller;
  const { text, image, id } = asked;
  const body = { text, image, id, k: HITS };
  if (!page.targets.hidden) body.target = new FormData(page.ask).get("target");
  page.hits.classList.add("stale");
  page.hits.setAttribute("aria-busy", "true");
  try {
    const found = await call(`/v1/collections/${encodeURIComponent(chosen.name)}/search`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: controller.signal,
    });
    if (running === controller) show(found);
  } catch (error) {
    if (running !== controller || error.name === "AbortError") return;
    page.hits.replaceChildren();
    page.status.textContent = "";
    note("Something went wrong", error.message);
  } finally {
    if (running === controller) {
      page.hits.classList.remove("stale");
      page.hits.removeAttribute("aria-busy");
    }
  }
}

function showQuery() {
  const other = asked && !asked.text;
  page.query.hidden = !other;
  page.hint.hidden = Boolean(other);
  page.queryLabel.textContent = other ? (asked.id ? `More like ${asked.label}` : asked.label) : "";
  page.queryImage.hidden = !(other && asked.preview);
  if (other && asked.preview) page.queryImage.src = asked.preview;
  else page.queryImage.removeAttribute("src");
}

function show(found) {
  const n = found.hits.length;
  page.status.textContent = n
    ? `${n} ${n === 1 ? "result" : "results"} in ${found.took_ms.toFixed(0)} ms, ` +
      `compared in the ${found.space} space`
    : "";
  if (n) note();
  else note("Nothing found", "The collection holds nothing of this kind.");
  page.hits.replaceChildren(...found.hits.map(tile));
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function tile(hit) {
  const label = String((hit.payload && hit.payload.name) || hit.text || hit.id);
  const score = hit.score.toFixed(3);
  const button = element("button", "hit");
  button.type = "button";
  button.setAttribute("aria-label", `${label}, score ${score}. Search for more like this.`);
  button.title = label;

  const frame = element("span", "frame");
  if (hit.image_url) {
    const picture = element("img", "");
    picture.src = hit.image_url;
    picture.alt = "";
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.addEventListener("error", () => {
      frame.replaceChildren(element("span", "none", `cannot be shown here: ${label}`));
    });
    frame.append(picture);
  } else if (hit.text) {
    frame.append(element("span", "words", hit.text));
  } else {
    frame.append(element("span", "none", hit.id));
  }

  const caption = element("span", "caption");
  caption.append(element("span", "name", label), element("span", "score", score));
  button.append(frame, caption);
  button.addEventListener("click", () => {
    asked = { id: hit.id, label, preview: hit.image_url };
    page.text.value = "";
    scrollTo({ top: 0 });
    search();
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

async function searchPicture(file) {
  const mine = begin();
  if (!file || !file.type.startsWith("image/")) {
    page.hits.replaceChildren();
    page.status.textContent = "";
    note("That is not a picture", "Drop, paste or pick a PNG, JPEG, WebP, GIF, BMP or TIFF file.");
    return;
  }
  try {
    const image = await dataUri(await smaller(file));
    if (mine !== turn) return;
    asked = { image, label: file.name || "Pasted picture", preview: image };
    page.text.value = "";
    search();
  } catch (error) {
    if (mine === turn) note("The picture cannot be read", error.message);
  }
}

// A smaller copy where the browser can make one, otherwise the file as it is.
async function smaller(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = SENT_SIDE / Math.max(bitmap.width, bitmap.height);
    if (scale >= 1) return file;
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return await new Promise((done) => canvas.toBlob((made) => done(made || file), "image/png"));
  } catch {
    return file;
  }
}

function dataUri(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("The file could not be read."));
    reader.readAsDataURL(file);
  });
}

function searchText() {
  const text = page.text.value.trim();
  asked = text ? { text } : null;
  search();
}

page.text.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(searchText, TYPING_PAUSE_MS);
});
page.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  if (page.text.value.trim()) searchText();
});
page.clear.addEventListener("click", () => {
  asked = null;
  search();
  page.text.focus();
});
page.targets.addEventListener("change", search);
page.collection.addEventListener("change", () => {
  if (asked && asked.id) asked = null;
  describeCollection();
  search();
});
page.pick.addEventListener("click", () => page.file.click());
page.file.addEventListener("change", () => {
  if (page.file.files.length) searchPicture(page.file.files[0]);
  page.file.value = "";
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  searchPicture(file);
});
document.addEventListener("keydown", (event) => {
  const elsewhere = document.activeElement !== page.text;
  if (event.key === "/" && elsewhere && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    page.text.focus();
  }
});

// The browser counts one enter and one leave for every element below the pointer.
let depth = 0;
const carriesFile = (event) => [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragenter", (event) => {
  if (!carriesFile(event)) return;
  depth += 1;
  page.drop.classList.add("open");
});
document.addEventListener("dragleave", (event) => {
  if (!carriesFile(event)) return;
  depth = Math.max(0, depth - 1);
  if (depth === 0) page.drop.classList.remove("open");
});
document.addEventListener("dragover", (event) => {
  if (carriesFile(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  depth = 0;
  page.drop.classList.remove("open");
  searchPicture(event.dataTransfer.files[0]);
});
addEventListener("popstate", fromAddress);

start();
