// What is asked, in the address and as a request. A question is
// {text, parts: [{kind: "text" | "id" | "image", value, minus}], target, space, fold, sure, filters}
// with filters [{op, field, value}].
import { keptPicture } from "./pictures.js";

export const HITS = 40;
// What is to be avoided counts half of what is looked for: docs/searches.md.
const MINUS = -0.5;
// Variants of one drawing, or of one photo.
const NEARLY_THE_SAME = 0.98;
// How many hits from the first on say whether anything fits: the order is not that of confidence, and
// one good hit far down is no answer.
export const LEADING = 3;
// From here on a hit is more likely right than not; below the other it is hardly ever right.
export const SURE = 0.5;
export const POOR = 0.15;
export const MOST_PARTS = 12;
const KINDS = { t: "text", i: "id", x: "image" };
const LETTERS = { text: "t", id: "i", image: "x" };

export function nothing() {
  return { text: "", parts: [], target: "image", space: "shared", fold: true, sure: false, filters: [] };
}

export function fromAddress(address) {
  const asked = nothing();
  asked.text = address.get("q") || "";
  // Pictures that are asked for and no longer here.
  asked.gone = 0;
  // Addresses that were kept before there were several parts.
  const like = address.get("like");
  const written = like ? [`+i:${like}`] : address.getAll("p");
  for (const part of written.slice(0, MOST_PARTS)) {
    const kind = KINDS[part[1]];
    const value = part.slice(3);
    if (!kind || !value) continue;
    // A picture lives as long as the page.
    if (kind === "image" && !keptPicture(value)) asked.gone += 1;
    else asked.parts.push({ kind, value, minus: part[0] === "-" });
  }
  asked.target = ["text", "both"].find((t) => t === address.get("target")) || "image";
  asked.space = ["specific", "mixed"].find((s) => s === address.get("space")) || "shared";
  asked.fold = address.get("fold") !== "0";
  asked.sure = address.get("sure") === "1";
  for (const filter of address.getAll("f")) {
    const [op, field, value] = filter.split(":").map(decode);
    if (op && field && value) asked.filters.push({ op, field, value });
  }
  return asked;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

export function toAddress(asked, address) {
  if (asked.text) address.set("q", asked.text);
  for (const part of asked.parts) {
    address.append("p", `${part.minus ? "-" : "+"}${LETTERS[part.kind]}:${part.value}`);
  }
  if (asked.target !== "image") address.set("target", asked.target);
  if (asked.space !== "shared") address.set("space", asked.space);
  if (!asked.fold) address.set("fold", "0");
  if (asked.sure) address.set("sure", "1");
  for (const { op, field, value } of asked.filters) {
    address.append("f", [op, field, value].map(encodeURIComponent).join(":"));
  }
}

export const isEmpty = (asked) => !asked.text && !asked.parts.length;
export const onlyMinus = (asked) => !asked.text && asked.parts.every((p) => p.minus);

// The parts as a request has them, words of the box first.
export function partsOf(asked) {
  const typed = asked.text ? [{ text: asked.text, weight: 1 }] : [];
  return [...typed, ...asked.parts.map((part) => ({
    [part.kind]: part.kind === "image" ? keptPicture(part.value)?.data : part.value,
    weight: part.minus ? MINUS : 1,
  }))];
}

// The body of a search.
export function toBody(asked, { mixed, fields }) {
  const parts = partsOf(asked);
  const { weight, ...alone } = parts[0];
  const body = parts.length === 1 && weight > 0 ? { ...alone } : { parts };
  body.k = HITS;
  if (mixed) body.target = asked.target;
  if (asked.space !== "shared") body.space = asked.space;
  if (asked.fold) body.collapse = NEARLY_THE_SAME;
  if (asked.sure) body.min_confidence = SURE;
  const must = conditions(asked.filters, fields);
  if (must.length) body.filter = { must };
  return body;
}

// Conditions of the engine: docs/filters.md. Those of fields that are not declared are left out.
function conditions(filters, fields) {
  const must = [];
  for (const { op, field, value } of filters) {
    const kind = fields[field];
    const given = kind && valueOf(kind, op, value);
    if (given !== undefined && given !== null) must.push({ field, [op]: given });
  }
  return must;
}

function valueOf(kind, op, value) {
  switch (kind) {
    case "bool": return value === "true";
    case "integer": return Number.isSafeInteger(Number(value)) ? Number(value) : undefined;
    case "float": return Number.isFinite(Number(value)) ? Number(value) : undefined;
    // A day is meant whole.
    case "datetime": return op === "lte" ? `${value}T23:59:59.999999Z` : `${value}T00:00:00Z`;
    default: return value;
  }
}
