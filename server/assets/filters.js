// Filters of the declared fields of a collection: what each kind can be asked, as docs/filters.md
// says.
import { at, element } from "./dom.js";

// Values of keywords that are suggested, of one field.
const MOST_SEEN = 60;

const FORMS = {
  keyword: (field) => [input(field, "contains", "contains", "text", `seen-${field}`)],
  integer: (field) => [whole(input(field, "gte", "from", "number")), whole(input(field, "lte", "to", "number"))],
  float: (field) => [input(field, "gte", "from", "number"), input(field, "lte", "to", "number")],
  datetime: (field) => [input(field, "gte", "from", "date"), input(field, "lte", "to", "date")],
  bool: (field) => [choice(field)],
};

const seen = new Map();

// Shows a form for each field; `changed()` is called when one changes.
export function showFilters(fields, changed) {
  const box = at("filter-fields");
  at("filters").hidden = !Object.keys(fields).length;
  seen.clear();
  box.replaceChildren();
  for (const [field, kind] of Object.entries(fields)) {
    const row = element("div", "filter");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", field);
    row.append(element("span", "filter-name", field), ...FORMS[kind](field));
    if (kind === "keyword") {
      const list = element("datalist");
      list.id = `seen-${field}`;
      row.append(list);
      seen.set(field, new Set());
    }
    box.append(row);
  }
  box.oninput = changed;
}

function labeled(field, say, made) {
  const label = element("label", "filter-part");
  made.setAttribute("aria-label", `${field} ${say}`);
  label.append(element("span", "", say), made);
  return label;
}

function input(field, op, say, type, list) {
  const made = element("input");
  made.type = type;
  if (type === "number") made.step = "any";
  if (list) made.setAttribute("list", list);
  made.autocomplete = "off";
  Object.assign(made.dataset, { field, op });
  return labeled(field, say, made);
}

function whole(part) {
  // Without a least value: steps are counted from it, and so far from 0 they cannot be told.
  Object.assign(part.querySelector("input"), { step: 1, max: Number.MAX_SAFE_INTEGER });
  return part;
}

function choice(field) {
  const made = element("select");
  made.append(new Option("any", ""), new Option("yes", "true"), new Option("no", "false"));
  Object.assign(made.dataset, { field, op: "eq" });
  return labeled(field, "is", made);
}

const inputs = () => [...at("filter-fields").querySelectorAll("[data-field]")];

// What is given; a value that is none is left out, and that is said.
export function readFilters() {
  const bad = inputs().filter((one) => !one.validity.valid).map((one) => one.getAttribute("aria-label"));
  at("filters-say").textContent = bad.length ? `Left out: ${bad.join(", ")}. That is no value of the field.` : "";
  const given = inputs().filter((one) => one.value.trim() !== "" && one.validity.valid);
  return given.map((one) => ({ op: one.dataset.op, field: one.dataset.field, value: one.value.trim() }));
}

export function writeFilters(filters) {
  for (const one of inputs()) {
    const given = filters.find((f) => f.field === one.dataset.field && f.op === one.dataset.op);
    one.value = given ? given.value : "";
  }
  readFilters();
}

// Suggests values that hits have.
export function learnValues(hits) {
  for (const [field, values] of seen) {
    const before = values.size;
    for (const hit of hits) {
      for (const value of [hit.payload?.[field] ?? []].flat()) {
        if (values.size < MOST_SEEN && typeof value === "string") values.add(value);
      }
    }
    if (values.size === before) continue;
    const options = [...values].sort().map((value) => new Option(value));
    at(`seen-${field}`).replaceChildren(...options);
  }
}
