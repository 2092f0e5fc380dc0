// What is known of items: titles that answers brought, and pictures.

import { ask, hasKey, picture } from "./api.js";
import { draw, make } from "./elements.js";

const titles = new Map();
const pictures = new Map(); // item id -> promise of an address or null; only where a key is set
let shown = false;

export const showPictures = (some) => { shown = some; };

export function forgetPictures() {
  for (const found of pictures.values()) found.then((address) => address && URL.revokeObjectURL(address));
  pictures.clear();
}

/** Remember the titles of an answer's items. */
export function learn(items) {
  for (const item of items) titles.set(item.item_id, item.title ?? null);
}

export const titleOf = (id) => titles.get(id) || id;

/** Look up titles of ids that came with the address. An id that is not found keeps its id as its title. */
export async function lookUp(ids) {
  const unknown = ids.filter((id) => !titles.has(id));
  await Promise.all(unknown.map(async (id) => {
    const { content } = await ask(`v1/items?limit=100&query=${encodeURIComponent(id)}`);
    learn(content.items.filter((item) => item.item_id === id));
  }));
}

/** An item's picture, or a drawing in its place; null where the artifact has no pictures at all. */
export function portrait(id) {
  if (!shown) return null;
  const frame = make("span", { class: "portrait", "aria-hidden": "true" });
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", fetchpriority: "low" });
  const replace = () => frame.replaceChildren(drawing(id));
  image.addEventListener("error", replace);
  const path = `v1/items/${encodeURIComponent(id)}/picture`;
  if (hasKey()) {
    if (!pictures.has(id)) pictures.set(id, picture(path).catch(() => null));
    pictures.get(id).then((address) => (address ? image.setAttribute("src", address) : replace()));
  } else {
    image.setAttribute("src", path);
  }
  frame.append(image);
  return frame;
}

/** A quiet tile with the initials of the title; its tone follows from the id. */
function drawing(id) {
  let tone = 7;
  for (const letter of id) tone = (tone * 31 + letter.codePointAt(0)) % 360;
  const words = titleOf(id).match(/[\p{L}\p{N}]+/gu) ?? ["?"];
  const initials = words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
  const text = draw("text", { x: 50, y: 84, "text-anchor": "middle", "font-size": 34, "font-weight": 600, fill: "#fff", "fill-opacity": 0.92 });
  text.textContent = initials;
  return draw("svg", { viewBox: "0 0 100 150", preserveAspectRatio: "xMidYMid slice" },
    draw("rect", { width: 100, height: 150, fill: `hsl(${tone} 32% 38%)` }),
    draw("circle", { cx: 84, cy: 22, r: 46, fill: `hsl(${(tone + 40) % 360} 38% 46%)`, "fill-opacity": 0.55 }),
    draw("circle", { cx: 12, cy: 138, r: 52, fill: `hsl(${(tone + 320) % 360} 38% 30%)`, "fill-opacity": 0.55 }),
    text);
}
