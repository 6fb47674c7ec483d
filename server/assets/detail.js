// One hit, whole: its picture, what is kept of it, and where the picture is like what was asked.
import { inCollection, send } from "./api.js";
import { at, element, nameOf, percent } from "./dom.js";
import { show } from "./pictures.js";
import { partsOf } from "./query.js";

// Facts that are listed, and letters of each.
const MOST_FACTS = 24;
const MOST_LETTERS = 300;
// How dark the parts are that are least like the question.
const DARKEST = 0.82;

let hit = null;
let doings = null;
let parts = [];
let running = null;

export function startDetail() {
  const dialog = at("detail");
  dialog.addEventListener("close", () => running?.abort());
  // A click beside it closes it.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  at("detail-close").addEventListener("click", () => dialog.close());
  for (const [id, name] of [["detail-like", "open"], ["detail-plus", "plus"], ["detail-minus", "minus"]]) {
    at(id).addEventListener("click", () => {
      dialog.close();
      doings[name](hit);
    });
  }
  at("heat-part").addEventListener("change", explain);
  at("heat-on").addEventListener("change", explain);
}

export function openDetail(of, asked, acts) {
  [hit, doings] = [of, acts];
  const label = nameOf(hit);
  at("detail-title").textContent = label;
  const picture = at("detail-picture");
  picture.hidden = !hit.image_url;
  picture.alt = label;
  if (hit.image_url) show(picture, hit.image_url);
  at("detail-words").hidden = Boolean(hit.image_url);
  at("detail-words").textContent = hit.image_url ? "" : hit.text || "";
  const told = typeof hit.confidence === "number";
  at("detail-sure").textContent = told
    ? `${percent(hit.confidence)} sure that this is what was looked for.`
    : "How sure this is cannot be told for such a question.";
  at("detail-facts").replaceChildren(...facts());
  const wanted = asked.parts.map((part) => part.minus);
  parts = partsOf(asked).filter((_, i) => !wanted[i - (asked.text ? 1 : 0)]);
  at("heat-part").replaceChildren(...parts.map((part, i) => new Option(nameOfPart(part), String(i))));
  for (const id of ["heat-part", "heat-part-label"]) at(id).hidden = parts.length < 2;
  at("why").hidden = !hit.image_url || !parts.length;
  at("heat").hidden = true;
  at("detail").showModal();
  if (!at("why").hidden) explain();
}

function nameOfPart(part) {
  if (part.text) return `\u201c${part.text}\u201d`;
  return part.id ? `item ${part.id}` : "the picture";
}

function facts() {
  const listed = [["id", hit.id]];
  if (typeof hit.score === "number") listed.push(["cosine", hit.score.toFixed(4)]);
  for (const [name, value] of Object.entries(hit.payload || {}).slice(0, MOST_FACTS)) {
    listed.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
  }
  return listed.flatMap(([name, value]) => [
    element("dt", "", name), element("dd", "", value.slice(0, MOST_LETTERS)),
  ]);
}

// Asks how much each part of the picture is like the question, and draws it.
async function explain() {
  running?.abort();
  at("heat").hidden = true;
  if (!at("heat-on").checked) {
    at("heat-say").textContent = "";
    return;
  }
  const controller = new AbortController();
  running = controller;
  const { text, image, id } = parts[Number(at("heat-part").value)];
  at("heat-say").textContent = "Comparing each part of the picture\u2026";
  try {
    const body = { id: hit.id, text, image, like: id };
    const heat = await send("POST", inCollection(doings.collection(), "/explain"), body, controller.signal);
    if (running === controller) draw(heat);
  } catch (error) {
    if (running !== controller || error.name === "AbortError") return;
    at("heat-say").textContent = `This cannot be shown: ${error.message}`;
  }
}

// Parts that are least like the question are darkest; between the cells it fades.
function draw({ rows, columns, cosines }) {
  const [least, most] = [Math.min(...cosines), Math.max(...cosines)];
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, rows];
  const cells = small.getContext("2d").createImageData(columns, rows);
  cosines.forEach((cosine, i) => {
    const warm = most > least ? (cosine - least) / (most - least) : 1;
    cells.data.set([12, 14, 22, Math.round(255 * DARKEST * (1 - warm))], 4 * i);
  });
  small.getContext("2d").putImageData(cells, 0, 0);
  // Before anything is measured: it moves what stands beside it.
  const best = cosines.indexOf(most);
  at("heat-say").textContent = `Bright is like the question, dark is not. Most alike is the ${place(best, rows, columns)}, `
    + `with ${most.toFixed(2)}; least, ${least.toFixed(2)}.`;
  const canvas = at("heat");
  canvas.hidden = false;
  const picture = at("detail-picture");
  const box = { width: picture.offsetWidth, height: picture.offsetHeight };
  for (const [side, value] of Object.entries({ ...box, left: picture.offsetLeft, top: picture.offsetTop })) {
    canvas.style[side] = `${value}px`;
  }
  const scale = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function place(cell, rows, columns) {
  const third = (i, n, names) => names[Math.min(2, Math.floor(((i + 0.5) / n) * 3))];
  const row = third(Math.floor(cell / columns), rows, ["upper", "", "lower"]);
  const column = third(cell % columns, columns, ["left", "", "right"]);
  return [row, column].filter(Boolean).join(" ") + (row || column ? " part" : "middle");
}
