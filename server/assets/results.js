// Hits as tiles of a grid: one is reached by Tab, the others by the arrow keys.
import { button, count, element, nameOf, percent } from "./dom.js";
import { frame, item } from "./pictures.js";

// Near duplicates that are unfolded at once.
const MOST_UNFOLDED = 48;

// A tile. `doings` says what a click on it, plus, minus and the question mark do; those that are
// missing have no button.
export function tile(hit, doings) {
  const label = nameOf(hit);
  const told = typeof hit.confidence === "number";
  const sure = told ? percent(hit.confidence) : "";
  const listed = element("li");
  listed.dataset.id = hit.id;
  const main = button("hit", undefined, undefined, () => doings.open(hit));
  main.title = typeof hit.score === "number" ? `${label}, cosine ${hit.score.toFixed(3)}` : label;
  const caption = element("span", "caption");
  caption.append(element("span", "name", label));
  if (told) caption.append(element("span", "sure", sure));
  // What is seen is what is read, and then what a click does.
  main.append(frame(hit, label), caption, element("span", "unseen", `${told ? " sure" : ""}. ${doings.says}`));
  listed.append(main);
  const tools = element("span", "tools");
  if (doings.plus) tools.append(button("tool", "+", `Add ${label} to the search`, () => doings.plus(hit)));
  if (doings.minus) tools.append(button("tool", "\u2212", `Avoid ${label}`, () => doings.minus(hit)));
  if (doings.why) tools.append(button("tool why", "?", `Details of ${label}`, () => doings.why(hit)));
  if (tools.children.length) listed.append(tools);
  if (hit.duplicates?.length) listed.append(folded(hit, doings));
  return listed;
}

// "3 like it": what was folded is shown behind the tile, and folded again.
function folded(hit, doings) {
  const n = hit.duplicates.length;
  const say = `${n} like it`;
  const seen = element("span", "", say);
  const unfold = button("unfold", undefined, undefined, async () => {
    const here = unfold.closest("li");
    if (unfold.getAttribute("aria-expanded") === "true") {
      for (const twin of [...here.parentElement.children]) {
        if (twin.dataset.twin === hit.id) twin.remove();
      }
      unfold.setAttribute("aria-expanded", "false");
      seen.textContent = say;
      return;
    }
    unfold.setAttribute("aria-expanded", "true");
    seen.textContent = `hide ${n}`;
    const ids = hit.duplicates.slice(0, MOST_UNFOLDED);
    const found = await Promise.allSettled(ids.map((id) => item(doings.collection(), id)));
    if (unfold.getAttribute("aria-expanded") !== "true" || !here.isConnected) return;
    const twins = found.filter((f) => f.status === "fulfilled").map((f) => tile(f.value, doings));
    for (const twin of twins) {
      twin.classList.add("twin");
      twin.dataset.twin = hit.id;
      for (const part of twin.querySelectorAll("button")) part.tabIndex = -1;
    }
    here.after(...twins);
  });
  unfold.setAttribute("aria-expanded", "false");
  unfold.append(seen, element("span", "unseen", `, ${count(n, "near duplicate", "near duplicates")} of ${nameOf(hit)}`));
  return unfold;
}

// A row of the search: what is asked, with its sign, and a way to be rid of it.
export function chip({ label, preview, minus, kind }, { turn, remove }) {
  const listed = element("li", minus ? "chip minus" : "chip");
  const sign = button("sign", minus ? "\u2212" : "+",
    minus ? `Avoiding ${label}. Look for it instead` : `Looking for ${label}. Avoid it instead`, turn);
  listed.append(sign);
  if (preview) {
    const picture = element("img");
    picture.alt = "";
    picture.addEventListener("error", () => picture.remove());
    preview(picture);
    listed.append(picture);
  }
  listed.append(element("span", "chip-name", kind === "text" ? `\u201c${label}\u201d` : label));
  listed.append(button("gone", "\u00d7", `Remove ${label}`, remove));
  return listed;
}

export function busy(list, is) {
  list.classList.toggle("stale", is);
  if (is) list.setAttribute("aria-busy", "true");
  else list.removeAttribute("aria-busy");
}
