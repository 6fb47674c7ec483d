// Pictures of items, and pictures that are asked with.
import { call, hasKey, inCollection, request } from "./api.js";
import { bytes, element } from "./dom.js";

// Pictures are made smaller before they are sent: no model looks at more pixels.
const SENT_SIDE = 1024;
// What a server takes as one picture unless it is told otherwise: docs/limits.md.
const MOST_BYTES = 32 * 1024 * 1024;
// Pictures of this page that back and forward can find again.
const MOST_KEPT = 24;
// Names of items that are remembered.
const MOST_NAMES = 2000;

export const NO_PICTURE = "Drop, paste or pick a PNG, JPEG, WebP, GIF, BMP or TIFF file.";

export const pictureUrl = (collection, id) =>
  inCollection(collection, `/items/${encodeURIComponent(id)}/image`);

// An `img` cannot send a key: with one, pictures are fetched once they come into sight.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((e) => e.isIntersecting)) {
    seen.unobserve(entry.target);
    fetchInto(entry.target, entry.target.dataset.url);
  }
}, { rootMargin: "300px" });

async function fetchInto(img, url) {
  try {
    const blob = await pictureBlob(url);
    if (img.dataset.url !== url) return;
    const local = URL.createObjectURL(blob);
    const free = () => URL.revokeObjectURL(local);
    img.addEventListener("load", free, { once: true });
    img.addEventListener("error", free, { once: true });
    img.src = local;
  } catch {
    img.dispatchEvent(new Event("error"));
  }
}

export async function pictureBlob(url) {
  const reply = await request(url);
  if (!reply.ok) throw new Error("no picture");
  return reply.blob();
}

// Shows what the server keeps at `url`.
export function show(img, url) {
  img.dataset.url = url;
  if (!hasKey() || !url.startsWith("/")) {
    img.src = url;
    return;
  }
  img.removeAttribute("src");
  seen.observe(img);
}

// What is seen of a hit: its picture, or its words.
export function frame(hit, label) {
  const made = element("span", "frame");
  // Its name stands below it.
  made.setAttribute("aria-hidden", "true");
  if (hit.image_url) {
    const picture = element("img");
    picture.alt = "";
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.addEventListener("error", () => {
      made.replaceChildren(element("span", "none", `cannot be shown here: ${label}`));
    });
    show(picture, hit.image_url);
    made.append(picture);
  } else if (hit.text) {
    made.append(element("span", "words", hit.text));
  } else {
    made.append(element("span", "none", hit.id));
  }
  return made;
}

// Items by id, as a hit is: bounded, and asked for once.
const items = new Map();
export async function item(collection, id) {
  const name = `${collection}/${id}`;
  if (items.has(name)) return items.get(name);
  const found = await call(inCollection(collection, `/items/${encodeURIComponent(id)}`));
  const image_url = found.modality === "image" ? pictureUrl(collection, id) : undefined;
  const made = { ...found, image_url };
  items.set(name, made);
  if (items.size > MOST_NAMES) items.delete(items.keys().next().value);
  return made;
}

// A picture to ask with: its data for a request, and a preview.
const kept = new Map();
// Addresses outlive the page, so another page must not name another picture the same.
const anyKey = () => crypto.getRandomValues(new Uint32Array(2)).join("-");

export async function keep(file) {
  const small = await smaller(file);
  const data = await dataUri(small);
  const picture = { key: anyKey(), data, label: file.name || "Pasted picture",
    preview: URL.createObjectURL(small) };
  kept.set(picture.key, picture);
  if (kept.size > MOST_KEPT) {
    const [oldest, gone] = kept.entries().next().value;
    URL.revokeObjectURL(gone.preview);
    kept.delete(oldest);
  }
  return picture;
}

export const keptPicture = (key) => kept.get(key);

export function forget(key) {
  const gone = kept.get(key);
  if (gone) URL.revokeObjectURL(gone.preview);
  kept.delete(key);
}

// What is wrong with a picture that the server did not take.
export const wrong = (error) => (error.code === "undecodable_picture"
  ? `It is damaged, or of another kind. ${NO_PICTURE}` : error.message);

// A smaller copy where the browser can make one, otherwise the file as it is.
async function smaller(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = SENT_SIDE / Math.max(bitmap.width, bitmap.height);
    if (scale >= 1) {
      bitmap.close();
      return file;
    }
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return await new Promise((done) => canvas.toBlob((made) => done(made || file), "image/png"));
  } catch {
    return file;
  }
}

function dataUri(file) {
  return new Promise((done, failed) => {
    if (file.size > MOST_BYTES) {
      throw new Error(`${file.name || "It"} has ${bytes(file.size)}; at most ${bytes(MOST_BYTES)} can be sent.`);
    }
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("The file could not be read."));
    reader.readAsDataURL(file);
  });
}

// A file as a request has it.
export const sendable = async (file) => dataUri(await smaller(file));

// Not every system knows the type of every file; what no server reads is said before it is sent.
export const isPicture = (file) => (file.type ? /^image\/(?!svg)/.test(file.type)
  : /\.(png|jpe?g|webp|gif|bmp|tiff?|avif)$/i.test(file.name));
