// The page: every change of the history or an option asks again at once and shows what moved.

import { Problem, ask, useKey } from "./api.js";
import { forgetPictures, learn, lookUp, showPictures, titleOf } from "./catalog.js";
import { byId, number, plural } from "./elements.js";
import { drawFound, drawHistory, search, startPicking } from "./picking.js";
import { Column, moves } from "./ranking.js";
import { clamp, readAddress, state, writeAddress } from "./state.js";

const SLOW_MS = 250; // only what takes longer is called loading
let model = null; // what /v1/model says
let asked = null; // the request under way
let columns = [];
const left = new Column(add);
const right = new Column(add);

const act = { add, remove, clear: () => change([]), fail };

function add(id) {
  if (!state.history.includes(id)) change([...state.history, id]);
}

function remove(id) {
  change(state.history.filter((one) => one !== id));
}

function change(history) {
  state.history = history;
  drawHistory(act);
  drawFound(act);
  recommend();
}

/** Ask for the ranking, and for a second one to compare with, and show both. */
async function recommend() {
  writeAddress();
  asked?.abort();
  const { signal } = (asked = new AbortController());
  arrange();
  const slow = setTimeout(() => { columns.forEach((column) => column.busy(true)); say("Asking …"); }, SLOW_MS);
  try {
    const versions = columns.length > 1 ? [state.model || model.version, state.versus] : [state.model];
    const answers = await Promise.all(versions.map((version) => rank(version, signal)));
    answers.forEach(({ content }) => learn(content.items));
    solve();
    clearTimeout(slow);
    show(answers, versions);
    if (state.teachers && model.teachers.length) await Promise.all(versions.map((version, at) => tell(version, columns[at], signal)));
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    clearTimeout(slow);
    if (asked.signal === signal) columns.forEach((column) => column.busy(false));
  }
}

function rank(version, signal) {
  const body = { history: state.history, k: state.k, exclude_seen: state.exclude };
  if (version) body.model = version;
  const onWait = (seconds) => say(`The endpoint is busy; trying again in ${seconds} s …`);
  return ask("v1/recommend", { body, signal, onWait });
}

async function tell(version, column, signal) {
  if (!state.history.length || !column.ids.length) return;
  const body = { history: state.history, items: column.ids };
  if (version) body.model = version;
  try {
    column.tell((await ask("v1/opinions", { body, signal })).content);
  } catch (error) {
    if (error.status !== 404) throw error; // this version was exported without opinions
  }
}

/** Put one column or two on the page. */
function arrange() {
  const compares = Boolean(state.versus);
  columns = compares ? [left, right] : [left];
  const place = byId("columns");
  place.className = compares ? "columns two" : "columns";
  const teaches = state.teachers && model.teachers.length > 0;
  const asRows = compares || teaches || !model.pictures;
  place.classList.toggle("rows", asRows);
  byId("teachers-note").hidden = !(teaches && state.history.length);
  if (place.children.length !== columns.length) place.replaceChildren(...columns.map((column) => column.element));
}

function show(answers, versions) {
  const before = left.ids;
  const [first, second] = answers.map(({ content }) => content);
  const ids = first.items.map((item) => item.item_id);
  const compares = Boolean(second);
  left.show(first, compares ? onlyHere(ids, second) : before.length ? moves(ids, before) : null, compares ? "only here" : "new");
  if (second) right.show(second, moves(second.items.map((item) => item.item_id), ids), "only here");
  answers.forEach((answer, at) => head(columns[at], answer, versions[at]));
  say(summary(first, second));
}

/** Marks for the left of two columns: only what the right one lacks. */
function onlyHere(ids, other) {
  const there = other.items.map((item) => item.item_id);
  return new Map(ids.filter((id) => !there.includes(id)).map((id) => [id, null]));
}

function head(column, { content, roundTrip, server }, version) {
  column.heading.textContent = version ? `${version} · ${content.model}` : content.model;
  const own = server === null ? "" : `, of which the endpoint ${server.toFixed(1)} ms`;
  column.latency.textContent = `${roundTrip.toFixed(0)} ms round trip${own}`;
}

function summary(first, second) {
  const count = plural(first.items.length, "item");
  if (!first.items.length) return "Nothing is left to recommend: the history holds the whole catalogue.";
  const unknown = first.unknown_items.length ? ` The catalogue does not hold ${first.unknown_items.join(", ")}.` : "";
  const lead = first.fallback ? `No item yet, so the most popular ones: ${count}.` : `${count}; first ${titleOf(first.items[0].item_id)}.`;
  if (!second) return lead + unknown;
  const there = new Set(second.items.map((item) => item.item_id));
  const common = first.items.filter((item) => there.has(item.item_id)).length;
  return `${number.format(common)} of ${count} in both rankings. Marks on the right tell places against the left.${unknown}`;
}

function say(text) {
  byId("status").textContent = text;
}

function fail(error) {
  if (!(error instanceof Problem)) throw error;
  say("");
  byId("problem-text").textContent = error.message;
  byId("problem").hidden = false;
  if (error.status === 401) { byId("access").open = true; byId("key").focus(); }
}

function solve() {
  byId("problem").hidden = true;
}

/** Learn what serves, then show everything that the address asks for. */
async function start() {
  readAddress();
  try {
    model = (await ask("v1/model")).content;
    solve();
    describe();
    offerVersions();
    showPictures(model.pictures);
    fillOptions();
    await Promise.all([search(act), lookUp(state.history)]);
    drawHistory(act);
    drawFound(act);
    await recommend();
  } catch (error) {
    fail(error);
  }
}

function describe() {
  const quality = model.metrics["valid_ndcg@10"];
  const parts = [model.name, plural(model.num_items, "item"), plural(model.parameters.total, "parameter")];
  if (typeof quality === "number") parts.push(`validation NDCG@10 ${quality.toFixed(4)}`);
  byId("about").textContent = parts.join(" · ");
}

function offerVersions() {
  const several = model.versions.length > 1;
  const names = model.versions.map(({ version, name }) => [version, `${version} · ${name.split("@")[0]}`]);
  byId("model").replaceChildren(new Option("as users get it", ""), ...names.map(([version, text]) => new Option(text, version)));
  byId("versus").replaceChildren(new Option("nothing", ""), ...names.map(([version, text]) => new Option(text, version)));
  byId("model-field").hidden = byId("versus-field").hidden = !several;
  byId("teachers-field").hidden = !model.teachers.length;
  const known = new Set(model.versions.map(({ version }) => version));
  for (const which of ["model", "versus"]) if (!several || !known.has(state[which])) state[which] = "";
}

function fillOptions() {
  byId("k").value = state.k;
  byId("exclude").checked = state.exclude;
  byId("model").value = state.model;
  byId("versus").value = state.versus;
  byId("teachers").checked = state.teachers;
}

function readOptions() {
  Object.assign(state, {
    k: clamp(byId("k").value), exclude: byId("exclude").checked, teachers: byId("teachers").checked,
    model: byId("model").value, versus: byId("versus").value,
  });
  recommend();
}

byId("options").addEventListener("change", () => { readOptions(); byId("k").value = state.k; });
byId("options").addEventListener("submit", (event) => { event.preventDefault(); readOptions(); });
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  forgetPictures();
  byId("access").open = false;
  start();
});
byId("retry").addEventListener("click", start);
byId("skip").addEventListener("click", () => byId("results-title").focus());
addEventListener("hashchange", start);
startPicking(act);
start();
