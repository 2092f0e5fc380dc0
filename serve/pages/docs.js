// The page of the API: draws openapi.json, and sends what is typed.
const el = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const kind = s => !s ? "" : s.$ref ? s.$ref.split("/").pop() : s.anyOf ? s.anyOf.map(kind).join(" or ") : s.type === "array" ? "list of " + kind(s.items) : s.type || "any";
const limits = s => ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "default"].filter(k => s[k] !== undefined).map(k => `${k} ${JSON.stringify(s[k])}`).join(", ");
const fields = (schema, all) => {
  const table = el("table"), head = el("tr"); ["field", "type", "limits", "meaning"].forEach(h => head.append(el("th", h))); table.append(head);
  for (const [name, s] of Object.entries(schema.properties || {})) { const row = el("tr"); [name, kind(s), limits(s), s.description || ""].forEach(v => row.append(el("td", v))); table.append(row); }
  return table;
};
const resolve = (s, all) => s && s.$ref ? all[s.$ref.split("/").pop()] : s;
const tryIt = (path, method, example) => {
  const box = el("div"), button = el("button", "Send"), out = el("pre"), area = el("textarea"); out.hidden = true;
  area.value = example; area.rows = 4; area.setAttribute("aria-label", method === "post" ? "body" : "address"); box.append(area, button, out);
  button.onclick = async () => {
    const headers = { "Content-Type": "application/json" }, key = document.getElementById("key").value; if (key) headers.Authorization = "Bearer " + key;
    const answer = await fetch(method === "post" ? path.slice(1) : area.value, { method: method.toUpperCase(), headers, body: method === "post" ? area.value : undefined });
    const type = answer.headers.get("Content-Type") || "", readable = /json|text/.test(type), body = await answer.blob(); out.hidden = false;
    const text = readable ? await body.text() : `${type}, ${body.size} bytes`;
    try { out.textContent = answer.status + "\n" + JSON.stringify(JSON.parse(text), null, 2); } catch { out.textContent = answer.status + "\n" + text; }
  };
  return box;
};
fetch("openapi.json").then(r => r.json()).then(api => {
  const all = api.components.schemas, place = document.getElementById("paths"); place.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, op] of Object.entries(methods)) {
    const d = el("details"), s = el("summary"); s.append(el("b", method.toUpperCase(), "method"), el("code", path), el("span", " " + (op.description || "").split("\n")[0])); d.append(s);
    const body = resolve(op.requestBody?.content["application/json"].schema, all);
    if (body) d.append(el("h4", "Body"), fields(body, all));
    if (op.parameters) d.append(el("h4", "Query"), fields({ properties: Object.fromEntries(op.parameters.map(p => [p.name, { ...p.schema, description: p.description }])) }, all));
    d.append(el("h4", "Answers"));
    for (const [status, a] of Object.entries(op.responses)) { const schema = a.content?.["application/json"]?.schema; d.append(el("p", `${status} ${a.description} ${kind(schema)}`)); if (status === "200" && resolve(schema, all)?.properties) d.append(fields(resolve(schema, all), all)); }
    const example = body ? JSON.stringify(body.examples?.[0] || { requests: [all.RecommendRequest.examples[0]] }) : path.slice(1) + (op.parameters?.some(p => p.in === "query") ? "?query=" : "");
    d.append(el("h4", "Try it"), tryIt(path, method, example)); place.append(d);
  }
});
