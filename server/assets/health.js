// Health: what the server says of itself, asked again while it is looked at.
import { call, inCollection, refusal, request } from "./api.js";
import { at, bytes, count, element, note, percent } from "./dom.js";
import { bar } from "./bars.js";
import { isOver, line } from "./jobs.js";

const EVERY_MS = 5000;
// Finished jobs that are listed.
const MOST_JOBS = 10;

let page = null;
let timer = 0;
let turn = 0;

export function start(context) {
  page = context;
}

export function open() {
  note("note");
  refresh();
}

export function leave() {
  turn += 1;
  clearTimeout(timer);
}

async function refresh() {
  turn += 1;
  const mine = turn;
  const collection = page.collection();
  const optional = (promise) => promise.catch(() => null);
  const [ready, figures, about, jobs] = await Promise.all([
    optional(request("/readyz").then(async (r) => (r.ok ? "" : (await refusal(r)).message))),
    optional(request("/metrics").then((r) => (r.ok ? r.text() : ""))),
    collection && optional(call(inCollection(collection.name))),
    optional(call("/v1/jobs")),
  ]);
  if (mine !== turn) return;
  const metrics = read(figures || "");
  const cards = [
    serverCard(ready, metrics), about && sizesCard(about), about && recallCard(about),
    figures && latencyCard(metrics), jobs && jobsCard(jobs.jobs || []),
  ];
  // Who is about to press a button keeps it.
  if (!at("health").contains(document.activeElement)) at("health").replaceChildren(...cards.filter(Boolean));
  timer = setTimeout(refresh, EVERY_MS);
}

// Samples of the Prometheus text format: [{name, labels, value}].
export function read(text) {
  const samples = [];
  for (const row of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(row);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return samples;
}

// The value below which a part of all lies, within its bucket by proportion; null where nothing was
// counted.
export function quantile(buckets, part) {
  const sorted = [...buckets].sort((a, b) => a.le - b.le);
  const all = sorted.at(-1)?.count || 0;
  if (!all) return null;
  let [below, from] = [0, 0];
  for (const { le, count: upTo } of sorted) {
    if (upTo >= part * all) {
      if (le === Infinity) return from;
      return from + (le - from) * (upTo > below ? (part * all - below) / (upTo - below) : 1);
    }
    [below, from] = [upTo, le];
  }
  return from;
}

function card(title, ...children) {
  const made = element("section", "card");
  made.append(element("h3", "", title), ...children.filter(Boolean));
  return made;
}

function facts(rows) {
  const list = element("dl", "facts");
  for (const [name, value] of rows.filter(Boolean)) {
    list.append(element("dt", "", name), element("dd", "", String(value)));
  }
  return list;
}

function serverCard(ready, metrics) {
  const model = page.model();
  const value = (name) => metrics.find((m) => m.name === name)?.value;
  const waiting = metrics.filter((m) => m.name === "diptych_queue_inputs");
  const queue = waiting.map((m) => `${m.value} ${m.labels.tower}`).join(", ");
  const memory = value("process_resident_memory_bytes") ?? value("diptych_memory_bytes");
  const state = element("p", ready === "" ? "good" : "wrong",
    ready === "" ? "Ready" : ready || "The server does not answer");
  return card("Server", state, facts([
    model && ["Model", model.name],
    model && ["Precision", `text ${model.text.precision}, pictures ${model.image.precision}`],
    queue && ["Waiting", queue],
    memory && ["Memory", bytes(memory)],
  ]));
}

function sizesCard({ name, stats, spaces, calibration, fields }) {
  const shared = spaces?.shared_dim;
  const of = Object.keys(fields || {});
  return card(`Collection ${name}`, facts([
    ["Pictures", stats.images.toLocaleString("en")],
    ["Texts", stats.texts.toLocaleString("en")],
    ["Shards", stats.shards],
    ["Indexed rows", stats.sealed_rows.toLocaleString("en")],
    ["Scanned rows", stats.tail_rows.toLocaleString("en")],
    ["Deleted rows", stats.deleted_rows.toLocaleString("en")],
    shared && ["Vectors", `${bytes(4 * shared * (stats.images + stats.texts))} of ${shared} numbers each`],
    stats.damaged_items > 0 && ["Damaged", stats.damaged_items],
    ["Index", stats.sealing ? "being built" : "in place"],
    ["Fields", of.length ? of.join(", ") : "none declared"],
    calibration?.length && ["Confidence", [...new Set(calibration.map((c) => c.source ?? c.calibration))].filter(Boolean).join(", ") || "calibrated"],
  ]));
}

function recallCard({ recall }) {
  const rows = element("ul", "bars");
  for (const lane of recall.lanes) {
    for (const part of lane.by_selectivity) {
      rows.append(bar(`${lane.modality}, ${lane.aspect}, ${part.selectivity}`, part.recall));
    }
  }
  const audited = `${count(recall.audited_queries, "search was", "searches were")} repeated exactly in the background. `
    + `The aim is ${percent(recall.target)}.`;
  return card("Recall audit", element("p", "say", audited), rows.children.length ? rows : null);
}

function latencyCard(metrics) {
  const routes = new Map();
  for (const { name, labels, value } of metrics) {
    if (name !== "diptych_http_request_seconds_bucket") continue;
    const buckets = routes.get(labels.route) || [];
    buckets.push({ le: labels.le === "+Inf" ? Infinity : Number(labels.le), count: value });
    routes.set(labels.route, buckets);
  }
  const table = element("table", "figures");
  const head = element("tr");
  for (const title of ["Route", "Requests", "p50", "p95"]) {
    const cell = element("th", "", title);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  const ms = (s) => (s === null ? "" : `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)} ms`);
  const wanted = [...routes].filter(([route]) => route.startsWith("/v1/"));
  const total = (buckets) => Math.max(...buckets.map((b) => b.count));
  for (const [route, buckets] of wanted.sort((a, b) => total(b[1]) - total(a[1])).slice(0, 8)) {
    const row = element("tr");
    row.append(element("td", "", route.replace("/v1/collections/{collection}", "{c}")),
      element("td", "", total(buckets).toLocaleString("en")),
      element("td", "", ms(quantile(buckets, 0.5))), element("td", "", ms(quantile(buckets, 0.95))));
    table.append(row);
  }
  return card("Latency since the start", wanted.length ? table : element("p", "say", "No request yet."));
}

function jobsCard(jobs) {
  const failed = (error) => note("note", "The job goes on", error.message);
  const listed = [...jobs.filter((j) => !isOver(j)), ...jobs.filter(isOver).slice(0, MOST_JOBS)];
  const rows = listed.map((job) => line(job, failed).row);
  return card("Jobs", ...(rows.length ? rows : [element("p", "say", "No job yet.")]));
}
