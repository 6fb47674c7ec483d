// The search: one at a time, the newest wins.
import { inCollection, send } from "./api.js";
import { announce, at, count, nameOf, note, roving } from "./dom.js";
import { openDetail } from "./detail.js";
import { learnValues, readFilters, showFilters, writeFilters } from "./filters.js";
import { NO_PICTURE, forget, isPicture, item, keep, keptPicture, show, wrong } from "./pictures.js";
import {
  LEADING, MOST_PARTS, POOR, SURE, fromAddress, isEmpty, nothing, onlyMinus, toAddress, toBody,
} from "./query.js";
import { busy, chip, tile } from "./results.js";

const TYPING_PAUSE_MS = 180;
// Hits that one list holds.
const MOST_HITS = 400;
// Below it the server tells no confidence: docs/searches.md.
const FEW = 16;
const SAY = {
  shared: "Shared compares what pictures and words have in common: what is to be seen.",
  specific: "Specific compares what only pictures tell and no words say, such as style and layout.",
  mixed: "Both counts what is to be seen, and how it looks, one half each.",
};
const ONLY_PICTURES = "Specific needs a question of pictures alone: it compares what no words say.";
const NOTHING_SPECIFIC = "This model keeps nothing that only pictures tell.";

let asked = nothing();
let running = null;
let typing = 0;
// Counts what was asked: what becomes ready later than a newer question is dropped.
let turn = 0;
let next = null;
let tiles = null;
let page = null;
// Whether the focus goes to the first hit: where it was is another view.
let entering = false;

// `context` has collection(), model(), and go(change) which writes the address.
export function start(context) {
  page = context;
  tiles = roving(at("hits"), (child) => child.querySelector(".hit"));
  at("text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(typed, TYPING_PAUSE_MS);
  });
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    typed();
  });
  at("clear").addEventListener("click", () => {
    asked = nothing();
    showForm();
    page.go(true);
    search();
    at("text").focus();
  });
  at("more-words").addEventListener("click", () => keepWords(false));
  at("less-words").addEventListener("click", () => keepWords(true));
  let adding = false;
  const pick = (add) => {
    adding = add;
    at("file").click();
  };
  at("pick").addEventListener("click", () => pick(false));
  at("more-picture").addEventListener("click", () => pick(true));
  at("file").addEventListener("change", () => {
    const files = [...at("file").files];
    if (files.length) take(files, adding);
    at("file").value = "";
  });
  at("targets").addEventListener("change", changed);
  at("spaces").addEventListener("change", changed);
  at("fold").addEventListener("change", changed);
  at("sure").addEventListener("change", changed);
  at("more").addEventListener("click", more);
  at("hits").addEventListener("keydown", shortcuts);
}

// Opens the view at what the address says.
export function open(address) {
  asked = fromAddress(address);
  const fields = page.collection()?.fields || {};
  showFilters(fields, () => {
    clearTimeout(typing);
    typing = setTimeout(changed, TYPING_PAUSE_MS);
  });
  showForm();
  // What the fields do not take is not asked for.
  asked.filters = readFilters();
  search();
  if (!asked.gone) return;
  page.go(false);
  const [title, drop] = asked.gone > 1 ? ["The pictures are gone", "Drop them"] : ["The picture is gone", "Drop it"];
  note("note", title, `What is dropped here lives as long as the page. ${drop} again to search with ${drop.slice(5)}.`);
}

function showForm() {
  writeFilters(asked.filters);
  at("text").value = asked.text;
  for (const name of ["target", "space"]) {
    for (const one of document.getElementsByName(name)) one.checked = one.value === asked[name];
  }
  at("fold").checked = asked.fold;
  at("sure").checked = asked.sure;
}

export function write(address) {
  toAddress(asked, address);
}

// Whether something is asked that a picture could be added to.
export const canAdd = () => !isEmpty(asked);

export function leave() {
  begin();
}

function typed() {
  asked.text = at("text").value.trim();
  page.go(false);
  search();
}

function changed() {
  const chosen = new FormData(at("ask"));
  asked.target = at("targets").hidden ? "image" : chosen.get("target");
  asked.space = chosen.get("space") || "shared";
  asked.fold = at("fold").checked;
  asked.sure = at("sure").checked;
  asked.filters = readFilters();
  page.go(false);
  search();
}

// Asks for these parts and nothing else.
function replace(parts) {
  asked.text = "";
  asked.parts = parts;
  at("text").value = "";
  page.go(true);
  search();
}

// Adds to what is asked, and says whether there was room.
function add(...parts) {
  const same = (p) => parts.some((part) => p.kind === part.kind && p.value === part.value);
  const all = [...asked.parts.filter((p) => !same(p)), ...parts];
  if (all.length > MOST_PARTS) {
    note("note", "That is too much at once", `A search takes at most ${MOST_PARTS} things. Remove one first.`);
    return false;
  }
  asked.parts = all;
  page.go(true);
  search();
  return true;
}

function keepWords(minus) {
  const text = at("text").value.trim();
  if (!text) return;
  asked.text = "";
  if (add({ kind: "text", value: text, minus })) at("text").value = "";
  else asked.text = text;
  at("text").focus();
}

// More like one item, from wherever in the page.
export function like(hit) {
  const modality = hit.modality;
  scrollTo({ top: 0 });
  entering = true;
  replace([{ kind: "id", value: hit.id, modality, minus: false }]);
  announce(`More like ${nameOf(hit)}`);
}

// Searches with pictures, or adds them to what is asked.
export async function take(files, adding) {
  const good = files.filter(isPicture).slice(0, MOST_PARTS);
  if (!good.length) return note("note", "That is not a picture", NO_PICTURE);
  const mine = begin();
  const parts = [];
  const drop = () => parts.forEach((part) => forget(part.value));
  try {
    for (const file of good) {
      parts.push({ kind: "image", value: (await keep(file)).key, minus: false });
      if (mine !== turn) return drop();
    }
  } catch (error) {
    drop();
    if (mine !== turn) return;
    page.go(true);
    return note("note", "The picture cannot be read", error.message);
  }
  if (!adding) replace(parts);
  else if (!add(...parts)) return drop();
  const left = files.length - good.length;
  if (left) note("note", `${count(left, "file was", "files were")} left out`, `${NO_PICTURE} A search takes at most ${MOST_PARTS}.`);
}

// Ends whatever runs, and counts a new question.
function begin() {
  clearTimeout(typing);
  if (running) running.abort();
  running = null;
  busy(at("hits"), false);
  turn += 1;
  return turn;
}

async function search() {
  begin();
  note("note");
  showAsked();
  next = null;
  at("more").hidden = true;
  const collection = page.collection();
  if (!collection || isEmpty(asked)) return idle();
  if (onlyMinus(asked)) {
    list([]);
    at("status").textContent = "";
    return note("found", "Nothing to look for yet", "Say what to look for; all that is asked so far is to be avoided.");
  }
  await ask(collection, toBody(asked, facts()), (found) => {
    list(found.hits);
    summarize(found);
  });
}

// Shows these hits, and hands on the focus of a tile that goes.
function list(hits) {
  const before = [...at("hits").children].findIndex((child) => child.contains(document.activeElement));
  const first = entering && (before >= 0 || document.activeElement === document.body);
  entering = false;
  at("hits").replaceChildren(...hits.map(one));
  tiles.reset();
  if (before < 0 && !first) return;
  const now = at("hits").children[first ? 0 : Math.min(before, hits.length - 1)];
  (now?.querySelector(".hit") || at("text")).focus();
}

function more() {
  const first = at("hits").children.length;
  ask(page.collection(), { ...toBody(asked, facts()), cursor: next }, (found) => {
    at("hits").append(...found.hits.map(one));
    tiles.reset();
    at("hits").children[first]?.querySelector(".hit").focus();
    announce(`${count(found.hits.length, "more result", "more results")}`);
  });
}

async function ask(collection, body, shown) {
  const controller = new AbortController();
  if (running) running.abort();
  running = controller;
  busy(at("hits"), true);
  try {
    const found = await send("POST", inCollection(collection.name, "/search"), body, controller.signal);
    if (running !== controller) return;
    shown(found);
    learnValues(found.hits);
    next = found.next;
    at("more").hidden = !next || at("hits").children.length >= MOST_HITS;
  } catch (error) {
    if (running !== controller || error.name === "AbortError") return;
    list([]);
    at("status").textContent = "";
    const unread = error.code === "undecodable_picture";
    note("found", unread ? "The picture cannot be read" : "Something went wrong", wrong(error));
  } finally {
    if (running === controller) busy(at("hits"), false);
  }
}

function facts() {
  const { stats, fields } = page.collection();
  return { mixed: stats.images > 0 && stats.texts > 0, fields: fields || {} };
}

function summarize(found) {
  const n = found.hits.length;
  const sure = found.hits.slice(0, LEADING).map((hit) => hit.confidence).filter((c) => typeof c === "number");
  const best = sure.length ? Math.max(...sure) : 1;
  const untold = page.collection().stats.items < FEW ? "among so few items" : "for such a question";
  // Pictures that are like one are seldom what only one of them is.
  const doubt = !sure.length ? `. How sure they are cannot be told ${untold}.`
    : asked.text && best < SURE ? ", the first of them not surely what you look for" : "";
  const said = n ? `${count(n, "result", "results")} in ${found.took_ms.toFixed(0)} ms${doubt}` : "";
  at("status").textContent = said;
  if (!n && asked.sure) note("found", "No good match", "Nothing in this collection is surely what you look for.");
  else if (!n) note("found", "Nothing found", asked.filters.length ? "No item passes these filters." : "The collection holds nothing of this kind.");
  else if (best < POOR) note("found", "No good match", "Probably none of these is what you look for. They only come nearest.");
  else {
    note("found");
    announce(said);
  }
}

const doings = {
  says: "Search for more like this",
  collection: () => page.collection().name,
  open: like,
  plus: (hit) => add({ kind: "id", value: hit.id, modality: hit.modality, minus: false }),
  minus: (hit) => add({ kind: "id", value: hit.id, modality: hit.modality, minus: true }),
  why: (hit) => openDetail(hit, asked, { ...doings, model: page.model }),
};

const one = (hit) => tile(hit, doings);

// Letters that act on the tile that has the focus.
function shortcuts(event) {
  const listed = event.target.closest("li");
  if (event.key === "Escape") return at("text").focus();
  if (!listed || event.ctrlKey || event.metaKey || event.altKey) return;
  const nth = { "+": 0, "-": 1, "?": 2 }[event.key];
  if (nth === undefined) return;
  event.preventDefault();
  listed.querySelectorAll(".tool")[nth]?.click();
}

// The chips, and what can be chosen for what is asked.
function showAsked() {
  const some = !isEmpty(asked);
  at("asked").hidden = !some && !refined();
  at("hint").hidden = some;
  for (const id of ["more-words", "less-words"]) at(id).hidden = !asked.text;
  at("chips").replaceChildren(...asked.parts.map((part, i) => {
    const picture = part.kind === "image" && keptPicture(part.value);
    const drawn = picture ? (img) => { img.src = picture.preview; } : null;
    const said = { label: picture ? picture.label : part.value, minus: part.minus, kind: part.kind };
    const change = (parts) => {
      asked.parts = parts;
      page.go(true);
      search();
      (at("chips").children[i]?.firstElementChild || at("text")).focus();
    };
    const acts = {
      turn: () => change(asked.parts.map((p) => (p === part ? { ...p, minus: !p.minus } : p))),
      remove: () => change(asked.parts.filter((p) => p !== part)),
    };
    const made = chip({ ...said, preview: drawn }, acts);
    if (part.kind === "id") describe(made, part, said, acts);
    return made;
  }));
  showChoices();
}

// What an item is called and looks like, once it is known.
async function describe(made, part, said, acts) {
  try {
    const found = await item(page.collection().name, part.value);
    part.modality = found.modality;
    const preview = found.image_url && ((img) => show(img, found.image_url));
    const held = [...made.children].indexOf(document.activeElement);
    const named = chip({ ...said, label: nameOf(found), preview }, acts);
    made.replaceWith(named);
    if (held >= 0) (held ? named.lastElementChild : named.firstElementChild).focus();
    showChoices();
  } catch {
    // The search says what is wrong with it.
  }
}

function showChoices() {
  const collection = page.collection();
  at("targets").hidden = !collection || !facts().mixed;
  const kinds = asked.parts.map((p) => (p.kind === "id" ? p.modality : p.kind));
  const alone = !asked.text && kinds.length > 0 && kinds.every((k) => k === "image") && asked.target === "image";
  const has = Boolean(page.model()?.spaces?.specific_image_dim);
  // An item whose kind is not known yet may be a picture.
  const can = has && (alone || (asked.space !== "shared" && kinds.includes(undefined)));
  if (!can) asked.space = "shared";
  for (const choice of document.getElementsByName("space")) {
    choice.disabled = choice.value !== "shared" && !can;
    choice.checked = choice.value === asked.space;
  }
  const why = has ? ONLY_PICTURES : NOTHING_SPECIFIC;
  at("spaces-say").textContent = can ? SAY[asked.space] : `${SAY.shared} ${why}`;
  at("refined").textContent = refined() ? ` \u00b7 ${refined()}` : "";
}

const refined = () => asked.filters.length + Number(asked.sure) + Number(!asked.fold) + Number(asked.space !== "shared");

function idle() {
  list([]);
  const collection = page.collection();
  if (!collection) {
    at("status").textContent = "";
    return note("found", "Nothing to search yet", "There is no collection. Index a folder of pictures, then reload:", "diptych index ~/Pictures");
  }
  const { images, texts } = collection.stats;
  const parts = [images && count(images, "picture", "pictures"), texts && count(texts, "text", "texts")];
  const all = parts.filter(Boolean).join(" and ");
  at("status").textContent = all ? `${all} in ${collection.name}` : "";
  const filters = asked.filters.length ? " Filters narrow what is found; by themselves they find nothing." : "";
  if (all) note("found", "Type a few words", `The nearest pictures appear while you type.${filters}`);
  else note("found", "This collection is empty", `Add pictures to ${collection.name}, then reload.`);
}
