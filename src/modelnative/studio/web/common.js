// What all parts of the studio's page share: requests, fields, messages. All text is set as text, never as HTML.
"use strict";

const Studio = (() => {
  const { make } = mountPlayer;

  async function ask(path, parameters = {}, body) {
    const query = new URLSearchParams(parameters).toString();
    const options = body ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : {};
    let answer;
    try {
      answer = await fetch(query ? `${path}?${query}` : path, options);
    } catch {
      throw new Error("The studio does not answer. Was it ended? Start it again with: modelnative studio");
    }
    const text = await answer.text();
    let found;
    try {
      found = JSON.parse(text);
    } catch {
      throw new Error(text || `The studio answered with status ${answer.status}.`);
    }
    if (!answer.ok) throw new Error(found.error);
    return found;
  }
  const message = (text) => make("p", { className: "message", role: "alert" }, text);
  // Runs an action of a button, shows that it is at work, and what went wrong.
  async function work(button, box, act) {
    button.disabled = true;
    box.replaceChildren(make("p", { className: "soft", role: "status" }, "Working …"));
    try {
      const found = await act();
      box.replaceChildren(...(Array.isArray(found) ? found : [found]));
    } catch (error) {
      box.replaceChildren(message(error.message));
    } finally {
      button.disabled = false;
    }
  }
  const link = (id, text = id) => make("a", { href: `#/run?${new URLSearchParams({ id })}` }, text);
  const field = (text, control, name = "") => make("label", { className: name }, text, control);
  const options = (pairs) => pairs.map(([value, text]) => make("option", { value }, text));
  const percent = (rate) => (rate === null || rate === undefined ? "–" : `${(Math.floor(rate * 1e4) / 100).toFixed(2)}%`);
  const scroll = (label, ...content) => make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label }, ...content);
  function table(head, rows, name = "") {
    return make("table", { className: name }, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))))));
  }
  const weightsName = (weights) => (weights === "best" ? "best weights" : `checkpoint at update ${Number(weights).toLocaleString("en")}`);
  return { make, ask, work, message, link, field, options, percent, scroll, table, weightsName };
})();
