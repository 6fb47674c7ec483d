// The page: which collection and which view are open, in the address.
import { call } from "./api.js";
import { at, note } from "./dom.js";
import { takeDrops } from "./drop.js";
import { isPicture } from "./pictures.js";
import * as classify from "./classify.js";
import * as health from "./health.js";
import * as map from "./map.js";
import * as search from "./search.js";
import * as teach from "./teach.js";
import { startDetail } from "./detail.js";

const VIEWS = { search, classify, teach, map, health };
const NAMES = { search: "", classify: "Classify", teach: "Teach", map: "Map", health: "Health" };

let collections = [];
let model = null;
let view = "search";

const context = {
  collection: () => collections.find((c) => c.name === at("collection").value) || collections[0],
  model: () => model,
  // Writes what is asked into the address: as a step of its own, or in place of the last.
  go,
  // Goes to another address of the page.
  visit,
  // Searches for more like an item, from any view.
  like(hit) {
    change("search", () => search.like(hit));
  },
  reload: load,
};

async function load() {
  const before = at("collection").value;
  const [list, about] = await Promise.all([call("/v1/collections"), call("/v1/model")]);
  [collections, model] = [list.collections, about];
  at("collection").replaceChildren(...collections.map((c) => new Option(c.name, c.name)));
  if (collections.some((c) => c.name === before)) at("collection").value = before;
  at("picker").hidden = collections.length < 2;
}

function go(push) {
  const address = new URLSearchParams();
  const chosen = context.collection();
  if (collections.length > 1 && chosen) address.set("collection", chosen.name);
  if (view !== "search") address.set("view", view);
  VIEWS[view].write?.(address);
  const query = address.toString();
  if (location.search.slice(1) === query) return;
  // Letters typed one after another are one step back; a click on a hit is another.
  history[push ? "pushState" : "replaceState"](null, "", query ? `?${query}` : location.pathname);
}

function visit(address) {
  history.pushState(null, "", `?${address}`);
  fromAddress();
}

function fromAddress() {
  const address = new URLSearchParams(location.search);
  const wanted = address.get("collection");
  // An address without one means the first, as it did when it was opened.
  const named = collections.some((c) => c.name === wanted) ? wanted : collections[0]?.name;
  if (named) at("collection").value = named;
  change(address.get("view"), () => VIEWS[view].open(address));
}

// Shows a view and opens it.
function change(name, opened) {
  const wanted = Object.hasOwn(VIEWS, name ?? "") ? name : "search";
  if (wanted !== view) VIEWS[view].leave?.();
  view = wanted;
  for (const each of Object.keys(VIEWS)) at(`view-${each}`).hidden = each !== view;
  for (const link of at("views").children) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = [NAMES[view], "Diptych"].filter(Boolean).join(" \u00b7 ");
  opened();
}

// Shows another view as a step of its own.
function turnTo(name) {
  change(name, () => {
    go(true);
    VIEWS[view].open(new URLSearchParams(location.search));
  });
}

at("views").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  turnTo(link.dataset.view);
});
at("collection").addEventListener("change", () => {
  const address = new URLSearchParams({ collection: at("collection").value });
  if (view !== "search") address.set("view", view);
  const text = view === "search" && at("text").value.trim();
  if (text) address.set("q", text);
  visit(address);
});
addEventListener("popstate", fromAddress);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const box = view === "teach" ? at("teach-text") : at("text");
  if (view !== "search" && view !== "teach") turnTo("search");
  box.focus();
});
takeDrops((files, add) => {
  if (view === "classify") return classify.add(files);
  const take = () => search.take(files, add);
  if (files.some(isPicture)) change("search", take);
  else take();
}, () => ({
  say: `Drop pictures to ${view === "classify" ? "classify" : "search with"} them`,
  add: view === "search" && search.canAdd(),
}));

async function begin() {
  try {
    await load();
  } catch (error) {
    const [title, say] = error.status === 401 ? ["A key is needed", "Give the key"] : ["Nothing can be shown", "Try again"];
    note("note", title, error.message);
    at("note-again").textContent = say;
    at("note-again").hidden = false;
    at("note-again").focus();
    return;
  }
  note("note");
  at("note-again").hidden = true;
  fromAddress();
  if (view === "search" && matchMedia("(hover: hover)").matches) at("text").focus();
}

startDetail();
for (const each of Object.values(VIEWS)) each.start(context);
at("note-again").addEventListener("click", begin);
begin();
