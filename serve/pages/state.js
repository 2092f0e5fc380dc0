// What the page is set to. It stands in the address behind #, which a browser sends to nobody, so it can be shared.

export const MOST_ITEMS = 100;
const FIRST_K = 12;

export const state = { history: [], k: FIRST_K, exclude: true, model: "", versus: "", teachers: false };

/** Read the address into `state`. */
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state.history = [...new Set(given.getAll("item").filter(Boolean))];
  state.k = clamp(given.get("k"));
  state.exclude = given.get("seen") !== "1";
  state.model = given.get("model") ?? "";
  state.versus = given.get("versus") ?? "";
  state.teachers = given.get("teachers") === "1";
}

/** Write `state` into the address, without a new entry for the back button. */
export function writeAddress() {
  const parts = new URLSearchParams(state.history.map((id) => ["item", id]));
  if (state.k !== FIRST_K) parts.set("k", state.k);
  if (!state.exclude) parts.set("seen", "1");
  if (state.model) parts.set("model", state.model);
  if (state.versus) parts.set("versus", state.versus);
  if (state.teachers) parts.set("teachers", "1");
  const text = parts.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

/** A usable k from what was typed. */
export function clamp(text) {
  const wanted = Math.trunc(Number(text));
  return wanted >= 1 ? Math.min(wanted, MOST_ITEMS) : FIRST_K;
}
