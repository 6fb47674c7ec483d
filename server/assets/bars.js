// Labels and how probable each is.
import { element, percent } from "./dom.js";

export function bars(labels, none, most = 6) {
  const list = element("ul", "bars");
  const shown = [...labels].sort((a, b) => b.probability - a.probability).slice(0, most);
  for (const { label, probability } of shown) list.append(bar(label, probability));
  if (typeof none === "number") list.append(bar("none of these", none, "none"));
  return list;
}

export function bar(label, part, kind = "") {
  const row = element("li", `bar ${kind}`);
  const track = element("span", "track");
  const fill = element("span", "fill");
  fill.style.width = `${Math.max(0, Math.min(1, part)) * 100}%`;
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  row.append(element("span", "bar-name", label), track, element("span", "bar-part", percent(part)));
  return row;
}
