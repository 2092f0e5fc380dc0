// The left side: searching items, and the history that was clicked together.

import { ask } from "./api.js";
import { learn, portrait, titleOf } from "./catalog.js";
import { byId, make, plural } from "./elements.js";
import { state } from "./state.js";

const PAUSE_MS = 120;
const FOUND = 20;
let found = [];
let asked = null;
let timer;

/** Wire the search field and the lists. `act` has add(id), remove(id), clear() and fail(error). */
export function startPicking(act) {
  const query = byId("query");
  query.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => search(act), PAUSE_MS); });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter") addFirst(act);
    else if (event.key === "ArrowDown") walk(event, -1, 1);
  });
  byId("found").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) walk(event, foundButtons().indexOf(document.activeElement), step);
    else if (event.key === "Escape") query.focus();
  });
  byId("clear").addEventListener("click", () => { act.clear(); query.focus(); });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); query.focus(); }
  });
}

const foundButtons = () => [...byId("found").querySelectorAll("button")];

function walk(event, place, step) {
  event.preventDefault();
  const buttons = foundButtons();
  if (place + step < 0) byId("query").focus();
  else buttons[Math.min(place + step, buttons.length - 1)]?.focus();
}

async function addFirst(act) {
  clearTimeout(timer);
  await search(act); // what is in the field now, not what the list showed before
  const first = found.find((item) => !state.history.includes(item.item_id));
  if (first) { act.add(first.item_id); byId("query").select(); }
}

/** Show what the field asks for; the most frequent items for an empty one. */
export async function search(act) {
  asked?.abort();
  asked = new AbortController();
  const text = byId("query").value.trim();
  try {
    const { content } = await ask(`v1/items?limit=${FOUND}&query=${encodeURIComponent(text)}`, { signal: asked.signal });
    found = content.items;
    learn(found);
    drawFound(act);
    byId("found-note").textContent = found.length ? "" : `Nothing holds “${text}” in its title or id. Try fewer letters.`;
  } catch (error) {
    if (error.name !== "AbortError") act.fail(error);
  }
}

export function drawFound(act) {
  const focused = document.activeElement?.closest("#found li")?.dataset.id;
  byId("found").replaceChildren(...found.map((item) => foundRow(item, act)));
  if (focused) rowOf("found", focused)?.querySelector("button").focus();
}

function foundRow({ item_id: id }, act) {
  const chosen = state.history.includes(id);
  const button = make("button", {
    type: "button", class: "over", "aria-pressed": String(chosen), "aria-label": `${titleOf(id)}, in the history`,
    onclick: () => (state.history.includes(id) ? act.remove(id) : act.add(id)),
  }, make("span", { class: "sign", "aria-hidden": "true", text: chosen ? "✓" : "+" }));
  return make("li", { class: chosen ? "row chosen" : "row", data: { id } }, portrait(id), words(id), button);
}

/** Show the history, oldest first. */
export function drawHistory(act) {
  const ids = state.history;
  byId("history").replaceChildren(...ids.map((id) => historyRow(id, act)));
  byId("no-history").hidden = ids.length > 0;
  byId("clear").hidden = ids.length === 0;
  byId("history-title").textContent = ids.length ? `Your history: ${plural(ids.length, "item")}` : "Your history";
}

function historyRow(id, act) {
  const button = make("button", {
    type: "button", class: "remove", "aria-label": `Remove ${titleOf(id)}`, title: "Remove",
    onclick: () => removeAndFocus(id, act),
  }, make("span", { "aria-hidden": "true", text: "×" }));
  return make("li", { class: "row", data: { id } }, portrait(id), words(id), button);
}

function removeAndFocus(id, act) {
  const place = state.history.indexOf(id);
  act.remove(id);
  const next = state.history[Math.min(place, state.history.length - 1)];
  (next ? rowOf("history", next).querySelector("button") : byId("query")).focus();
}

function words(id) {
  const title = titleOf(id);
  return make("span", { class: "words" }, make("span", { class: "title", text: title }), title === id ? null : make("small", { text: id }));
}

const rowOf = (list, id) => [...byId(list).children].find((row) => row.dataset.id === id);
