// Pictures that are dropped on the page or pasted into it, for whichever view is open.
import { at } from "./dom.js";

// `taken(files, add)` gets what was dropped; `offered()` says what a drop does, and whether there is
// something to add it to.
export function takeDrops(taken, offered) {
  const zone = at("drop");
  // The browser counts one enter and one leave for every element below the pointer.
  let depth = 0;
  const carriesFile = (event) => [...event.dataTransfer.types].includes("Files");
  const close = () => {
    depth = 0;
    zone.classList.remove("open");
  };
  const over = (event) => event.target.closest?.("[data-drop]")?.dataset.drop === "add";
  document.addEventListener("dragenter", (event) => {
    if (!carriesFile(event)) return;
    depth += 1;
    const { say, add } = offered();
    at("drop-new").textContent = say;
    at("drop-add").hidden = !add;
    zone.classList.add("open");
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFile(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) close();
  });
  document.addEventListener("dragover", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    at("drop-add").classList.toggle("over", over(event));
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    const add = over(event);
    close();
    taken([...event.dataTransfer.files], add);
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((f) => f.type.startsWith("image/"));
    if (!files.length) return;
    event.preventDefault();
    taken(files, false);
  });
}
