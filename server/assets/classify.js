// Classify: labels that are typed, or a head that was taught, and pictures.
import { Refused, call, inCollection, send } from "./api.js";
import { announce, at, button, element, note, percent } from "./dom.js";
import { bars } from "./bars.js";
import { NO_PICTURE, isPicture, sendable, wrong } from "./pictures.js";

const TYPING_PAUSE_MS = 400;
// Pictures on the page, and labels that are asked for.
const MOST_PICTURES = 24;
const MOST_LABELS = 100;
// Pictures that are asked about at once.
const AT_ONCE = 2;

let page = null;
// {file, preview, tile, say}
let pictures = [];
let typing = 0;
let turn = 0;

export function start(context) {
  page = context;
  at("labels").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      page.go(false);
      judgeAll();
    }, TYPING_PAUSE_MS);
  });
  at("with-head").addEventListener("change", () => {
    page.go(false);
    show();
    judgeAll();
  });
  at("classify-form").addEventListener("submit", (event) => event.preventDefault());
  at("classify-pick").addEventListener("click", () => at("classify-file").click());
  at("classify-file").addEventListener("change", () => {
    add([...at("classify-file").files]);
    at("classify-file").value = "";
  });
  at("classify-clear").addEventListener("click", () => {
    for (const picture of pictures) URL.revokeObjectURL(picture.preview);
    pictures = [];
    show();
    at("classify-pick").focus();
  });
}

export async function open(address) {
  note("note");
  const labels = address.getAll("label").slice(0, MOST_LABELS);
  if (labels.length) at("labels").value = labels.join("\n");
  await listHeads(address.get("head") || "");
  show();
  judgeAll();
}

export function write(address) {
  const head = at("with-head").value;
  if (head) address.set("head", head);
  else for (const label of labelsTyped()) address.append("label", label);
}

const labelsTyped = () => {
  const lines = at("labels").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const labels = [...new Set(lines)];
  at("labels-say").textContent = labels.length > MOST_LABELS
    ? `The first ${MOST_LABELS} of ${labels.length} labels are asked about.` : "";
  return labels.slice(0, MOST_LABELS);
};

async function listHeads(chosen) {
  const collection = page.collection();
  const heads = collection
    ? await call(inCollection(collection.name, "/heads")).then((l) => l.heads).catch(() => []) : [];
  at("with-head").replaceChildren(new Option("the labels above", ""),
    ...heads.map((head) => new Option(`${head.name} (taught, ${head.labels.length} labels)`, head.name)));
  at("with-head").value = heads.some((h) => h.name === chosen) ? chosen : "";
}

export function add(files) {
  const some = files.filter(isPicture);
  const good = some.slice(0, MOST_PICTURES - pictures.length);
  const left = some.length - good.length;
  if (left) {
    note("note", "There is no room for more", `${left} left out: at most ${MOST_PICTURES} pictures are shown at once.`);
  } else if (some.length < files.length) note("note", "That is not a picture", NO_PICTURE);
  else note("note");
  for (const file of good) pictures.push(made(file));
  show();
  judge(good.length ? pictures.slice(-good.length) : []);
}

function made(file) {
  const picture = { file, preview: URL.createObjectURL(file) };
  const label = file.name || "Pasted picture";
  picture.tile = element("li", "judgment");
  const img = element("img");
  img.src = picture.preview;
  img.alt = label;
  // Not every browser shows every kind.
  img.addEventListener("error", () => img.replaceWith(element("span", "lost", label)));
  picture.say = element("div", "judgment-say");
  const remove = button("gone", "\u00d7", `Remove ${label}`, () => {
    URL.revokeObjectURL(picture.preview);
    pictures = pictures.filter((p) => p !== picture);
    show();
    at("classify-pick").focus();
  });
  picture.tile.append(img, picture.say, remove);
  return picture;
}

function show() {
  at("labels").disabled = Boolean(at("with-head").value);
  at("classify-clear").hidden = !pictures.length;
  const none = element("li", "empty", "Pictures that you add appear here, each with its bars.");
  at("judged").replaceChildren(...(pictures.length ? pictures.map((p) => p.tile) : [none]));
}

function judgeAll() {
  turn += 1;
  judge(pictures);
}

async function judge(some) {
  const [mine, head, labels] = [turn, at("with-head").value, labelsTyped()];
  const waiting = [...some];
  for (const picture of some) {
    const say = head || labels.length ? "Looking\u2026" : "Type a label or two.";
    picture.say.replaceChildren(element("p", "say", say));
  }
  if (!head && !labels.length) return;
  const worker = async () => {
    for (let picture = waiting.shift(); picture; picture = waiting.shift()) {
      if (mine !== turn) return;
      const answer = await ask(picture, head, labels).catch((error) => ({ error }));
      if (mine === turn) tell(picture, answer);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (mine === turn && some.length) announce(`${some.length} looked at`);
}

async function ask(picture, head, labels) {
  const image = await sendable(picture.file);
  if (!head) {
    const answer = await compare({ image, labels });
    return { labels: answer.predictions, none: answer.none_of_these };
  }
  const path = inCollection(page.collection().name, `/heads/${encodeURIComponent(head)}/predict`);
  const { predictions: [first] } = await send("POST", path, { inputs: [{ image }] });
  if (first.error) throw new Refused(first.error.message, 400, first.error.code);
  return { labels: first.labels, none: first.none_of_these };
}

// The collection says what is usual, and so whether any label fits. One of another model cannot.
function compare(asked) {
  const collection = page.collection()?.name;
  const plain = () => send("POST", "/v1/classify", asked);
  if (!collection) return plain();
  return send("POST", "/v1/classify", { ...asked, collection }).catch((error) => {
    if (error.status === 409) return plain();
    throw error;
  });
}

function tell(picture, { labels, none, error }) {
  if (error) {
    picture.say.replaceChildren(element("p", "say wrong", wrong(error)));
    // The same picture is refused again; a server that did not answer may do so now.
    const passing = !error.status || error.status >= 429;
    if (passing) picture.say.append(button("small", "Try again", undefined, () => judge([picture])));
    return;
  }
  const [best] = [...labels].sort((a, b) => b.probability - a.probability);
  const verdict = none ? "None of these" : best.label;
  const said = [element("h3", "verdict", verdict), bars(labels)];
  if (none) said.splice(1, 0, element("p", "say", `${best.label} comes nearest.`));
  picture.say.replaceChildren(...said);
  picture.tile.title = none ? verdict : `${best.label}, ${percent(best.probability)}`;
}
