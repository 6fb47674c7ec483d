// Long work of the server, with progress and a way to stop it.
import { call, soon } from "./api.js";
import { button, element } from "./dom.js";

const EVERY_MS = 500;
const OVER = new Set(["done", "failed", "cancelled", "canceled"]);

export const isOver = (job) => OVER.has(job.state);

// Asks until the job is over, or `stopped()`; `told(job)` gets each state.
export async function follow(id, told, stopped = () => false) {
  for (;;) {
    const job = await call(`/v1/jobs/${encodeURIComponent(id)}`);
    if (stopped()) return job;
    told(job);
    if (isOver(job)) return job;
    await soon(EVERY_MS);
  }
}

export const cancel = (id) => call(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });

// A line about a job that can be told again.
export function line(job, failed) {
  const row = element("div", "job");
  const say = element("p", "job-say");
  const meter = element("progress");
  meter.setAttribute("aria-label", `Progress of ${job.kind}`);
  const stop = button("button", "Cancel", undefined, async () => {
    stop.disabled = true;
    await cancel(job.id).catch(failed);
  });
  row.append(say, meter, stop);
  const tell = (now) => {
    const of = now.total ? ` of ${now.total.toLocaleString("en")}` : "";
    const some = now.failed ? `, ${now.failed.toLocaleString("en")} failed` : "";
    say.textContent = `${now.kind}: ${now.state}, ${(now.done || 0).toLocaleString("en")}${of}${some}`
      + (now.error ? `. ${typeof now.error === "string" ? now.error : now.error.message || ""}` : "");
    if (now.total) [meter.max, meter.value] = [now.total, now.done || 0];
    stop.hidden = meter.hidden = isOver(now);
  };
  tell(job);
  return { row, tell };
}
