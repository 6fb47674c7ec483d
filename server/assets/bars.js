// Labels and how probable each is.
import { element, percent } from "./dom.js";

export function bars(labels, most = 6) {
  const list = element("ul", "bars");
  const shown = [...labels].sort((a, b) => b.probability - a.probability).slice(0, most);
  for (const { label, probability } of shown) list.append(bar(label, probability));
  return list;
}

export function bar(label, part) {
  const row = element("li", "bar");
  const track = element("span", "track");
  const fill = element("span", "fill");
  fill.style.width = `${Math.max(0, Math.min(1, part)) * 100}%`;
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  row.append(element("span", "bar-name", label), track, element("span", "bar-part", percent(part)));
  return row;
}
