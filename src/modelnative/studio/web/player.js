// The episode player: steps through an episode token by token. No dependencies.
//
// Episodes are what `Explanation.as_dict()` returns, with `why` and `verdict`; an episode with a switch on also has
// `switch` and `baseline`, the tokens without it. All text is set as text, never as HTML.
"use strict";

const mountPlayer = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const number = (x, digits) => (x === null ? "–" : x.toFixed(digits));

  function options(episodes) {
    const groups = new Map();
    episodes.forEach((episode, index) => {
      if (!groups.has(episode.stage)) groups.set(episode.stage, make("optgroup", { label: episode.stage }));
      const text = `${episode.success ? "✓" : "✗"} ${episode.why ? episode.why + ": " : ""}${episode.problem}`;
      groups.get(episode.stage).append(make("option", { value: String(index) }, text));
    });
    return [...groups.values()];
  }

  function shown(field, before) {
    const after = field.value, old = before ? before.value : after;
    const cell = make("td");
    if (Array.isArray(after)) {
      const list = make("ul", { className: "cells" });
      after.forEach((text, i) => {
        const item = make("li", {}, text);
        if (Array.isArray(old) && old[i] !== text) item.classList.add("changed");
        if (i === field.marked) {
          item.classList.add("marked");
          item.prepend("▸ ");
        }
        list.append(item);
      });
      cell.append(after.length ? list : make("span", { className: "empty" }, "empty"));
    } else if (old !== after) {
      cell.append(make("del", {}, `${old || "empty"} → `), make("strong", {}, after || "empty"));
    } else {
      cell.append(after ? after : make("span", { className: "empty" }, "empty"));
    }
    const changed = JSON.stringify(old) !== JSON.stringify(after);
    const label = make("th", { scope: "row" }, changed ? "● " : "", field.label);
    if (changed) label.append(make("span", { className: "sr" }, " (changed)"));
    return make("tr", {}, label, cell);
  }

  // The value of every token as a line over the episode; the marked one is the current token.
  function line(values, at) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "line");
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const known = values.filter((v) => v !== null);
    const low = Math.min(0, ...known), high = Math.max(1, ...known);
    const x = (i) => (values.length > 1 ? (100 * i) / (values.length - 1) : 50);
    const y = (v) => 29 - (28 * (v - low)) / (high - low);
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", values.map((v, i) => (v === null ? "" : `${i && values[i - 1] !== null ? "L" : "M"}${x(i)} ${y(v)}`)).join(""));
    const cursor = document.createElementNS(SVG, "path");
    cursor.setAttribute("class", "at");
    cursor.setAttribute("d", `M${x(at)} 0V30`);
    svg.append(path, cursor);
    return svg;
  }

  // What `modelnative inspect` found in a stage: carriers by actions, the column of the current token framed.
  function carriedTable({ keys, rows }, onCell) {
    const head = make("tr", {}, make("th", { scope: "col" }, "exchanged before action"), ...keys.map((key) => make("th", { scope: "col", className: "n" }, String(key))),
      make("th", { scope: "col" }, "verdict"));
    const body = rows.map(([carrier, verdict, cells]) => make("tr", {}, make("th", { scope: "row" }, carrier), ...cells.map(({ followed, title }, i) => {
      const text = followed === null ? "·" : followed.toFixed(2), cell = make("td", { className: "n", title });
      if (onCell) cell.append(make("button", { type: "button", "aria-label": `${carrier}, action ${keys[i]}: ${followed === null ? title : text}`, onclick: () => onCell(carrier, keys[i]) }, text));
      else cell.append(text);
      if (followed !== null) cell.style.setProperty("--share", `${Math.round(60 * followed)}%`);
      return cell;
    }), make("td", {}, verdict)));
    return make("table", { className: "carried" }, make("thead", {}, head), make("tbody", {}, ...body));
  }

  // Weights of the token's row, by view: over the places of the problem, and over the start and the tokens before.
  function weightsOf(episode, row, view) {
    if (view === "copied") return { places: row.weights, before: [] };
    const heads = view === "mean" ? row.attention : [row.attention[Number(view)]];
    const all = (heads[0] || []).map((_, i) => heads.reduce((sum, head) => sum + head[i], 0) / heads.length);
    return { places: all.slice(0, episode.context.length), before: all.slice(episode.context.length) };
  }

  function mount(root, episodes, { onStep = () => {}, label = "Episode player", carried = {}, onCell } = {}) {
    let episode = episodes[0], at = 0, timer = null;
    const id = `player-${mount.count = (mount.count || 0) + 1}`;
    const select = make("select", { id: `${id}-episode` }, ...options(episodes));
    const outcome = make("p", { className: "outcome" });
    const strip = make("ul", { className: "strip" });
    const slider = make("input", { type: "range", min: "1", step: "1" });
    slider.setAttribute("aria-label", "Token of the episode");
    const program = make("ol", { className: "program" });
    const status = make("p", { className: "status" });
    status.setAttribute("role", "status");
    const view = make("select", { id: `${id}-view` });
    const views = make("label", { className: "view", htmlFor: view.id }, "Weights shown: ", view), start0 = make("p", { className: "soft" });
    const inside = make("div", { className: "inside" });
    const board = make("tbody"), chances = make("tbody"), values = make("div");
    const button = (text, name, act) => make("button", { type: "button", title: name, "aria-label": name, onclick: act }, text);
    const play = button("▶", "Play", () => (timer ? stop() : start()));
    const last = () => episode.tokens.length - 1;

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶";
      play.title = "Play";
      play.setAttribute("aria-label", "Play");
    }
    function start() {
      if (at === last()) go(0);
      timer = setInterval(() => (at < last() ? go(at + 1) : stop()), 600);
      play.textContent = "❚❚";
      play.title = "Pause";
      play.setAttribute("aria-label", "Pause");
    }
    function go(place, quietly = false) {
      at = Math.max(0, Math.min(last(), place));
      draw();
      if (!quietly) onStep(at);
    }
    function open(index, place = 0) {
      stop();
      episode = episodes[index];
      outcome.className = `outcome ${episode.success ? "good" : "bad"}`;
      outcome.textContent = `${episode.success ? "✓" : "✗"} ${episode.verdict}`;
      slider.max = String(Math.max(1, episode.tokens.length));
      strip.replaceChildren(...episode.context.map(([name, token]) => make("li", {},
        make("span", { className: "ink" }), make("b", {}, token), make("small", {}, name), make("small"))));
      const heads = episode.heads || [], copies = episode.tokens.some((row) => row.weights.length), chosen = view.value;
      const choices = [...(copies ? [["copied", "copied from each place"]] : []), ...(heads.length ? [["mean", "attention, mean of all heads"]] : []),
        ...heads.map((name, i) => [String(i), `attention, ${name}`])];
      view.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
      if (choices.some(([value]) => value === chosen)) view.value = chosen;
      views.hidden = choices.length < 2;
      const stage = carried[episode.stage];
      inside.replaceChildren(...(stage ? [make("h3", {}, "What is carried where: share of pairs that follow an exchange"), make("div", { className: "scroll", tabIndex: 0, role: "group",
        "aria-label": "What is carried where" }, carriedTable(stage, onCell))] : []));
      const length = Math.max(episode.tokens.length, episode.oracle.length);
      program.replaceChildren();
      // Without a different token it may still stop before the oracle does.
      const departure = episode.departure === null && episode.oracle.length > episode.tokens.length ? episode.tokens.length : episode.departure;
      for (let i = 0; i < length; i++) {
        const token = episode.tokens[i], oracle = episode.oracle[i] || "";
        const differs = episode.oracle.length > 0 && (token ? token.token : "") !== oracle;
        const item = make("li", { className: i === departure ? "differs" : "" });
        const parts = [make("span", { className: "ink" }), make("b", {}, token ? token.token : "·"), make("small", {}, token && !token.valid ? "no effect" : "")];
        const was = episode.baseline && (episode.baseline[i] || "end"), key = episode.switch && episode.switch.key;
        if (episode.switch) parts.push(make("small", {}, `${key === 0 || key === i + 1 ? "⇄ " : ""}${token && token.token !== was ? `was ${was}` : ""}`));
        if (episode.oracle.length) parts.push(make("small", {}, differs ? `≠ ${oracle || "end"}` : `= ${oracle}`));
        item.append(token ? make("button", { type: "button", tabIndex: -1, onclick: () => go(i) }, ...parts) : make("button", { type: "button", disabled: true }, ...parts));
        program.append(item);
      }
      go(place, place > 0);
    }
    function draw() {
      const row = episode.tokens[at];
      if (!row) {
        status.textContent = "The episode has no tokens.";
        return;
      }
      slider.value = String(at + 1);
      slider.setAttribute("aria-valuetext", `token ${at + 1} of ${episode.tokens.length}: ${row.token}`);
      const { places, before } = view.value ? weightsOf(episode, row, view.value) : { places: [], before: [] };
      const total = places.reduce((a, b) => a + b, 0);
      const most = total > 0.05 ? places.indexOf(Math.max(...places)) : -1;
      start0.textContent = before.length ? `Attention on the start: ${Math.round(100 * before[0])}%; on tokens before: in their boxes.` : "";
      [...strip.children].forEach((item, i) => {
        const weight = places[i] || 0;
        item.firstChild.style.height = `${100 * weight}%`;
        item.classList.toggle("most", i === most);
        item.lastChild.textContent = weight >= 0.005 ? `${Math.round(100 * weight)}%` : "";
      });
      [...program.children].forEach((item, i) => {
        item.classList.toggle("now", i === at);
        item.classList.toggle("later", i > at);
        item.firstChild.setAttribute("aria-current", i === at ? "step" : "false");
        item.querySelector(".ink").style.height = `${100 * (before[i + 1] || 0)}%`;
      });
      const notes = [row.source ? `copied from ${row.source}` : "", row.valid ? "" : "no effect",
        row.oracle !== null && row.oracle !== row.token ? `the oracle writes ${row.oracle || "nothing more"}` : ""];
      status.textContent = `Token ${at + 1} of ${episode.tokens.length}: ${row.token}, probability ${number(row.probability, 3)}, value ${
        number(row.value, 2)}, entropy ${number(row.entropy, 3)} nats${notes.filter(Boolean).map((n) => `; ${n}`).join("")}.`;
      const fields = new Map((at ? episode.tokens[at - 1].board : episode.board).map((field) => [field.label, field]));
      board.replaceChildren(...row.board.map((field) => shown(field, fields.get(field.label))));
      chances.replaceChildren(...row.top.map(([token, p]) => {
        const bar = make("span", { className: token === row.token ? "chance" : "chance other" });
        bar.style.width = `${100 * p}%`;
        return make("tr", {}, make("th", { scope: "row" }, token === row.token ? `▸ ${token}` : token),
          make("td", { className: "n" }, number(p, 3)), make("td", {}, bar));
      }));
      for (const line of inside.querySelectorAll("tr")) [...line.children].forEach((cell, i) => cell.classList.toggle("here", i > 0 && (carried[episode.stage].keys[i - 1] === at + 1)));
      const all = episode.tokens.map((token) => token.value), known = all.filter((v) => v !== null);
      values.replaceChildren(line(all, at), make("p", { className: "soft" },
        known.length ? `Now ${number(row.value, 2)}; from ${number(Math.min(...known), 2)} to ${number(Math.max(...known), 2)}.` : "Not measured."));
    }

    const keys = { ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(last()) };
    root.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey || !(event.key in keys)) return;
      event.preventDefault();
      stop();
      keys[event.key]();
    });
    slider.addEventListener("input", () => go(Number(slider.value) - 1));
    view.addEventListener("change", draw);
    select.addEventListener("change", () => open(Number(select.value)));
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", `${label}: arrow keys, Home and End step through the tokens`);
    const pane = (title, ...content) => make("div", {}, make("h3", {}, title), ...content);
    root.replaceChildren(
      ...(episodes.length > 1 ? [make("label", { htmlFor: select.id }, make("span", { className: "sr" }, "Episode")), select] : []),
      outcome,
      pane("Problem as the network reads it, and how much of it this token uses", views, strip, start0),
      make("div", { className: "transport" }, button("«", "First token", () => go(0)), button("‹", "Previous token", () => go(at - 1)),
        play, button("›", "Next token", () => go(at + 1)), button("»", "Last token", () => go(last())), slider),
      pane("Tokens that the agent wrote; below each, the oracle's", program),
      status,
      make("div", { className: "panes" }, pane("Tools after this token", make("table", {}, board)),
        make("div", {}, make("h3", {}, "Most probable tokens"), make("table", {}, chances)),
        pane("Predicted return, token by token", values)), inside);
    const wrong = episodes.findIndex((e) => !e.success);
    const first = wrong >= 0 ? wrong : episodes.findIndex((e) => e.stage === episodes[episodes.length - 1].stage);
    select.value = String(first);
    open(first);
    // Shows another episode in the place of all.
    function show(other, place) {
      episodes = [other];
      open(0, place);
    }
    return { root, show, go: (place) => go(place, true), get at() { return at; } };
  }
  mount.make = make;
  return mount;
})();

for (const root of document.querySelectorAll("[data-episodes]")) {
  const data = (name) => JSON.parse(document.getElementById(name).textContent);
  mountPlayer(root, data(root.dataset.episodes), root.dataset.carried ? { carried: data(root.dataset.carried) } : {});
}
