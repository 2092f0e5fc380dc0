// One column of recommendations: where each item stands, what moved, and what the teachers think of it.

import { portrait, titleOf } from "./catalog.js";
import { aloud, calm, make, number } from "./elements.js";

const MOVE_MS = 260;

/** How each item of `ids` stands against `before`: a number of places up (or, negative, down), or null for a new one. */
export function moves(ids, before) {
  return new Map(ids.map((id, place) => [id, before.includes(id) ? before.indexOf(id) - place : null]));
}

/** A column on the page. `onPick(id)` hears of a click on an item. */
export class Column {
  constructor(onPick) {
    this.onPick = onPick;
    this.ids = [];
    this.heading = make("h3", {});
    this.latency = make("p", { class: "latency" });
    this.list = make("ol", { class: "ranking" });
    this.element = make("section", { class: "column" }, make("div", { class: "column-heading" }, this.heading, this.latency), this.list);
  }

  busy(is) {
    this.list.setAttribute("aria-busy", String(is));
  }

  /**
   * Show an answer.
   * @param {{items: object[], fallback: string | null}} answer
   * @param {Map<string, number | null> | null} moved see `moves`; null where there is nothing to compare with
   * @param {string} newWord what an item that was not there is called
   */
  show(answer, moved, newWord) {
    const places = new Map([...this.list.children].map((row) => [row.dataset.id, row.getBoundingClientRect()]));
    const focus = this.focused();
    const scores = answer.items.map((item) => item.score);
    const [least, most] = [Math.min(...scores), Math.max(...scores)];
    const share = (score) => (most > least ? 0.12 + (0.88 * (score - least)) / (most - least) : 1);
    this.ids = answer.items.map((item) => item.item_id);
    this.list.replaceChildren(...answer.items.map((item, place) =>
      this.row(item, place, share(item.score), mark(moved?.get(item.item_id), newWord), answer.fallback)));
    if (focus) this.focus(focus);
    if (!calm()) this.glide(places);
  }

  row(item, place, share, moved, fallback) {
    const id = item.item_id;
    const title = titleOf(id);
    const score = fallback ? `${number.format(item.score)} interactions` : item.score.toFixed(3);
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", share.toFixed(3));
    const button = make("button", {
      type: "button", class: "over", "aria-label": `Add ${title} to the history`, title: "Add to the history", onclick: () => this.onPick(id),
    }, make("span", { class: "sign", "aria-hidden": "true", text: "+" }));
    return make("li", { class: "item", data: { id } },
      make("span", { class: "place" }, aloud("Place "), String(place + 1)),
      portrait(id),
      make("span", { class: "words" },
        make("span", { class: "title", text: title }),
        make("span", { class: "score" }, aloud(fallback ? "" : "score "), make("span", { text: score }), moved),
        bar,
        make("ul", { class: "teachers", "aria-label": `What teachers think of ${title}`, hidden: true })),
      button);
  }

  /** Add what the teachers think: an answer of /v1/opinions. */
  tell({ items, teachers }) {
    const known = new Map(items.map((item) => [item.item_id, item.opinions]));
    for (const row of this.list.children) {
      const opinions = known.get(row.dataset.id);
      if (!opinions) continue;
      const best = Math.min(...opinions.map((one) => one.position));
      const list = row.querySelector(".teachers");
      list.hidden = false;
      list.replaceChildren(...teachers.map((name) => opinion(name, opinions.find((one) => one.teacher === name), best)));
    }
  }

  focused() {
    const row = document.activeElement?.closest(".item");
    return row && this.list.contains(row) ? { id: row.dataset.id, place: [...this.list.children].indexOf(row) } : null;
  }

  /** Give the focus back to the item that had it, or to what stands there now. */
  focus({ id, place }) {
    const rows = [...this.list.children];
    const row = rows.find((one) => one.dataset.id === id) ?? rows[Math.min(place, rows.length - 1)];
    row?.querySelector("button").focus({ preventScroll: true });
  }

  /** Let items move from where they were, and new ones appear. */
  glide(places) {
    if (!places.size) return;
    for (const row of this.list.children) {
      const [from, to] = [places.get(row.dataset.id), row.getBoundingClientRect()];
      const frames = from
        ? [{ transform: `translate(${from.x - to.x}px, ${from.y - to.y}px)` }, { transform: "none" }]
        : [{ opacity: 0, transform: "scale(.96)" }, { opacity: 1, transform: "none" }];
      row.animate(frames, { duration: MOVE_MS, easing: "cubic-bezier(.2, .7, .2, 1)" });
    }
  }
}

function mark(change, newWord) {
  if (change === undefined || change === 0) return null;
  if (change === null) return make("span", { class: "moved new", text: newWord });
  const [sign, word, name] = change > 0 ? ["▲", "up", "up"] : ["▼", "down", "down"];
  const size = Math.abs(change);
  return make("span", { class: `moved ${name}` }, make("span", { "aria-hidden": "true", text: `${sign} ${size}` }), aloud(`${word} ${size}`));
}

function opinion(name, found, best) {
  if (!found) return make("li", { class: "none" }, make("b", { text: name }), " knows nothing of it");
  const liked = found.position === best;
  return make("li", { class: liked ? "liked" : "" },
    make("b", { text: name }), " ",
    make("span", { class: "position", text: `№ ${number.format(found.position)}` }), liked ? aloud(" likes it most") : null,
    make("span", { class: "near" }, ` close to ${titleOf(found.nearest)} `, make("span", { class: "cosine", text: found.similarity.toFixed(2) })));
}
