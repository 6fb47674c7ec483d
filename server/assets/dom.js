// Elements. Everything from the server is set as text, never as HTML.

export const at = (id) => document.getElementById(id);

export function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function button(className, text, label, pressed) {
  const made = element("button", className, text);
  made.type = "button";
  if (label) {
    made.setAttribute("aria-label", label);
    made.title = label;
  }
  made.addEventListener("click", pressed);
  return made;
}

// A titled message; without a title it is taken away. `prefix` names its elements.
export function note(prefix, title, text, code) {
  at(prefix === "found" ? "found-note" : "note").hidden = !title;
  at(`${prefix}-title`).textContent = title || "";
  at(`${prefix}-text`).textContent = text || "";
  at(`${prefix}-code`).hidden = !code;
  at(`${prefix}-code`).textContent = code || "";
  if (!title) return;
  // It stands above the view, which may be scrolled.
  if (prefix === "note") at("note").scrollIntoView({ block: "nearest" });
  announce(`${title}. ${text || ""}`);
}

// Says something to who listens to the page.
export function announce(text) {
  at("live").textContent = text;
}

export const percent = (part) => `${Math.round(part * 100)} %`;

export function count(n, one, many) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const step = n > 0 ? Math.min(units.length - 1, Math.floor(Math.log10(n) / 3)) : 0;
  return `${(n / 1000 ** step).toFixed(step && n / 1000 ** step < 10 ? 1 : 0)} ${units[step]}`;
}

// What a hit or an item is called.
export function nameOf(item) {
  return String((item.payload && (item.payload.name || item.payload.title)) || item.text || item.id);
}

// One of the children is reached by Tab, the others by the arrow keys. `main` finds in a child what
// takes the focus.
export function roving(list, main) {
  const all = () => [...list.children].map(main).filter(Boolean);
  const enter = (chosen) => {
    for (const child of list.children) {
      const mine = child.contains(chosen);
      for (const part of child.querySelectorAll("button")) part.tabIndex = mine ? 0 : -1;
    }
  };
  list.addEventListener("focusin", (event) => enter(event.target));
  list.addEventListener("keydown", (event) => {
    const items = all();
    const here = items.findIndex((item) => item.closest("li") === event.target.closest("li"));
    if (here < 0) return;
    const row = items.filter((item) => item.offsetTop === items[0].offsetTop
      && item.closest("li").offsetTop === items[0].closest("li").offsetTop).length || 1;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row };
    const to = event.key === "Home" ? 0 : event.key === "End" ? items.length - 1
      : event.key in steps ? here + steps[event.key] : -1;
    if (to < 0 || to >= items.length) return;
    event.preventDefault();
    enter(items[to]);
    items[to].focus();
  });
  return { reset: () => { const [first] = all(); if (first) enter(first); } };
}
