// The map: every item a point, near to what it is like. Close up, points are pictures.
import { inCollection, refusal, request, soon } from "./api.js";
import { announce, at, button, count, element, nameOf, note, roving } from "./dom.js";
import { Chart } from "./chart.js";
import { frame, item, show } from "./pictures.js";

const MOST_POINTS = 10000;
const NEAR = 8;
// The server says when to ask again; never faster or slower than this.
const [LEAST_WAIT_S, MOST_WAIT_S] = [0.5, 5];
// Pause before a server that does not answer is asked again.
const AGAIN_MS = 3000;
const SAY = {
  tsne: "Each point is a picture; near points are pictures that the model finds alike (t-SNE). Distances across the map say little.",
  pca: "Each point is a picture, laid out by the two directions in which the collection differs most (PCA).",
};

let page = null;
let chart = null;
let turn = 0;
let shown = "";
let resting = 0;

export function start(context) {
  page = context;
  chart = new Chart(at("map"), {
    picture: (id) => inCollection(page.collection().name, `/items/${encodeURIComponent(id)}/image`),
    hovered: card,
    chosen: choose,
    moved: () => {
      clearTimeout(resting);
      resting = setTimeout(listNear, 150);
    },
  });
  roving(at("near"), (child) => child.querySelector("button"));
  at("map-in").addEventListener("click", () => chart.zoom(1.6));
  at("map-out").addEventListener("click", () => chart.zoom(1 / 1.6));
  at("map-whole").addEventListener("click", () => chart.whole());
  at("methods").addEventListener("change", () => {
    page.go(false);
    load();
  });
}

const method = () => [...document.getElementsByName("method")].find((m) => m.checked).value;

export function open(address) {
  note("note");
  const wanted = address.get("method");
  for (const one of document.getElementsByName("method")) {
    one.checked = one.value === (wanted === "pca" ? "pca" : "tsne");
  }
  load();
}

export function write(address) {
  if (method() !== "tsne") address.set("method", method());
}

export function leave() {
  turn += 1;
  chart.clear();
  shown = "";
}

function wait(text) {
  at("map-wait").hidden = !text;
  at("map-wait").textContent = text || "";
}

async function load() {
  turn += 1;
  const [mine, collection, how] = [turn, page.collection(), method()];
  at("map-say").textContent = SAY[how];
  at("map-card").hidden = true;
  if (!collection) return wait("There is no collection yet.");
  const target = collection.stats.images ? "image" : "text";
  const wanted = `${collection.name} ${how}`;
  if (wanted !== shown) {
    chart.clear();
    at("near").replaceChildren();
  }
  try {
    const path = inCollection(collection.name, `/map?target=${target}&method=${how}&limit=${MOST_POINTS}`);
    for (;;) {
      const reply = await request(path);
      if (mine !== turn) return;
      if (reply.status === 202) {
        const { progress } = await reply.json();
        wait(`The map is being computed: ${Math.round(100 * (progress || 0))} %`);
        const after = Number(reply.headers.get("retry-after")) || 1;
        await soon(1000 * Math.min(MOST_WAIT_S, Math.max(LEAST_WAIT_S, after)));
        if (mine !== turn) return;
        continue;
      }
      if (!reply.ok) throw await refusal(reply);
      const map = await reply.json();
      if (mine !== turn) return;
      wait(map.ids.length ? "" : "There is nothing to show yet.");
      chart.set(map.ids, map.xs, map.ys, target === "image");
      shown = wanted;
      const of = map.ids.length < map.of ? ` of ${map.of.toLocaleString("en")}` : "";
      announce(`${count(map.ids.length, "point", "points")}${of} on the map`);
      return listNear();
    }
  } catch (error) {
    if (mine !== turn) return;
    wait(error.message);
    if (error.status !== 0) return;
    await soon(AGAIN_MS);
    if (mine === turn) load();
  }
}

async function choose(id) {
  try {
    page.like(await item(page.collection().name, id));
  } catch (error) {
    wait(error.message);
  }
}

// What the pointer is over.
let over = null;
async function card(id, x, y) {
  const box = at("map-card");
  if (id === over) return move(box, x, y);
  over = id;
  box.hidden = true;
  if (!id) return;
  const found = await item(page.collection().name, id).catch(() => null);
  if (over !== id || !found) return;
  at("map-card-name").textContent = nameOf(found);
  at("map-card-picture").hidden = !found.image_url;
  // Until the new one is there it would be the old one.
  at("map-card-picture").removeAttribute("src");
  if (found.image_url) show(at("map-card-picture"), found.image_url);
  box.hidden = false;
  move(box, x, y);
}

function move(box, x, y) {
  const { clientWidth: width, clientHeight: height } = at("map");
  box.style.left = `${Math.min(x + 14, width - box.offsetWidth - 8)}px`;
  box.style.top = `${Math.min(y + 14, height - box.offsetHeight - 8)}px`;
}

// The same without a pointer: what is nearest to the middle, as buttons.
async function listNear() {
  const [mine, name, ids] = [turn, page.collection().name, chart.nearest(NEAR)];
  const found = await Promise.allSettled(ids.map((id) => item(name, id)));
  if (mine !== turn) return;
  const items = found.filter((f) => f.status === "fulfilled").map((f) => f.value);
  at("near").replaceChildren(...items.map((one, i) => {
    const listed = element("li");
    const label = nameOf(one);
    const main = button("hit", undefined, undefined, () => page.like(one));
    const caption = element("span", "caption");
    caption.append(element("span", "name", label));
    main.append(frame(one, label), caption, element("span", "unseen", ". Search for more like this"));
    main.tabIndex = i ? -1 : 0;
    listed.append(main);
    return listed;
  }));
}
