// The studio's page: the list of runs, and one run. All text is set as text, never as HTML.
"use strict";

(() => {
  const main = document.getElementById("main");
  const { make } = mountPlayer;
  let leave = () => {};

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
  const link = (id, text = id) => make("a", { href: `#/run?${new URLSearchParams({ id })}` }, text);
  const field = (text, control, name = "") => make("label", { className: name }, text, control);
  const message = (text) => make("p", { className: "message", role: "alert" }, text);
  const percent = (rate) => (rate === null || rate === undefined ? "–" : `${(Math.floor(rate * 1e4) / 100).toFixed(2)}%`);
  function ago(time) {
    const seconds = Math.max(0, Date.now() / 1000 - time);
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
    return `${Math.floor(seconds)} s ago`;
  }

  // The list of runs

  const latest = (run) => (run.rate !== null ? run.rate : run.success.length ? run.success.reduce((a, b) => a + (b || 0), 0) / run.success.length : null);
  const COLUMNS = [
    ["run", (run) => run.id, "name"], ["task", (run) => run.task, ""], ["algorithm", (run) => run.algorithm, "rare"], ["core", (run) => run.core, "rare"],
    ["curriculum", (run) => run.curriculum, "rare"], ["seed", (run) => Number(run.seed), "n rare"], ["state", (run) => run.state, ""],
    ["updates", (run) => run.update, "n"], ["success", latest, "n"], ["written", (run) => run.changed, "n"],
  ];
  const list = { by: "written", down: true, text: "", state: "", most: 300 };

  async function showList() {
    let found = { runs: [] };
    const search = make("input", { type: "search", value: list.text, autocomplete: "off", spellcheck: false });
    const state = make("select", {}, ...["", "training", "finished", "stopped", "damaged"].map((v) => make("option", { value: v }, v || "all states")));
    const count = make("p", { className: "soft", role: "status" });
    const body = make("tbody"), head = make("tr"), more = make("button", { type: "button" }, "Show more");
    state.value = list.state;
    const heads = COLUMNS.map(([name, , kind]) => {
      const button = make("button", { type: "button" });
      button.addEventListener("click", () => {
        list.down = list.by === name ? !list.down : ["updates", "success", "written"].includes(name);
        list.by = name;
        draw();
      });
      const cell = make("th", { scope: "col", className: kind.replace("name", "") }, button);
      head.append(cell);
      return [name, cell, button];
    });
    function draw() {
      const words = list.text.toLowerCase().split(/\s+/).filter(Boolean);
      const value = COLUMNS.find(([name]) => name === list.by)[1];
      const rows = found.runs.filter((run) => (!list.state || run.state === list.state) && words.every((word) =>
        [run.id, run.task, run.algorithm, run.core, run.curriculum, run.state].join(" ").toLowerCase().includes(word)));
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === y) return 0;
        if (x === null || x === undefined) return 1;
        if (y === null || y === undefined) return -1;
        return (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (list.down ? -1 : 1);
      };
      rows.sort(compare);
      for (const [name, cell, button] of heads) {
        const sorted = list.by === name;
        cell.setAttribute("aria-sort", sorted ? (list.down ? "descending" : "ascending") : "none");
        button.textContent = sorted ? `${name} ${list.down ? "▼" : "▲"}` : name;
      }
      body.replaceChildren(...rows.slice(0, list.most).map((run) => {
        const name = make("td", { className: "name" }, link(run.id, run.id === "." ? "(this folder)" : run.id));
        if (run.problem) return make("tr", {}, name, make("td", { className: "why bad", colSpan: COLUMNS.length - 1 }, `damaged: ${run.problem}`));
        const cells = [run.task, run.algorithm, run.core, run.curriculum, run.seed, run.state, run.update.toLocaleString("en"), percent(latest(run)), ago(run.changed)];
        return make("tr", {}, name, ...cells.map((text, i) => make("td", { className: COLUMNS[i + 1][2] + (text === "training" ? " live" : "") }, String(text))));
      }));
      more.hidden = rows.length <= list.most;
      count.textContent = found.runs.length ? `${rows.length} of ${found.runs.length} runs` :
        "No runs yet. Begin one with: modelnative train --out runs/first. It appears here by itself.";
    }
    search.addEventListener("input", () => { list.text = search.value; draw(); });
    state.addEventListener("change", () => { list.state = state.value; draw(); });
    more.addEventListener("click", () => { list.most += 1000; draw(); });
    const problem = make("div");
    async function refresh() {
      try {
        found = await ask("/api/runs");
        document.getElementById("folder").textContent = found.folder;
        problem.replaceChildren();
        draw();
      } catch (error) {
        problem.replaceChildren(message(error.message));
      }
    }
    document.title = "runs · modelnative studio";
    await refresh();
    main.replaceChildren(make("h1", {}, "Runs"), problem, make("div", { className: "tools", role: "search" }, field("Search", search, "wide"), field("State", state)),
      count, make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Runs" }, make("table", { className: "runs" }, make("thead", {}, head), body)), more);
    const timer = setInterval(() => document.hidden || refresh(), 3000);
    leave = () => clearInterval(timer);
  }

  // One run

  async function showRun(id) {
    document.title = `${id} · modelnative studio`;
    const run = await ask("/api/run", { id });
    const facts = make("p", { className: "facts" }), plots = make("div", { className: "cards" });
    function tell(state, points) {
      const last = points.update && points.update.length ? Math.round(points.update[points.update.length - 1]) : run.update;
      facts.replaceChildren(...[run.task, `${run.algorithm}, ${run.core}`, `curriculum ${run.curriculum}`, `seed ${run.seed}`, `update ${last.toLocaleString("en")}`,
        run.rate === null ? "" : `${percent(run.rate)} of all problems solved`].filter(Boolean).map((text) => make("span", {}, text)));
      facts.append(make("span", { className: state === "training" ? "live" : "", role: "status" }, state));
      if (run.report) facts.append(make("a", { href: `/report?${new URLSearchParams({ id })}`, target: "_blank", rel: "noopener" }, "report"));
    }
    const reading = make("p", { className: "soft", role: "status" });
    function read(news) {
      const lines = news.damaged ? `metrics.jsonl: ${news.damaged} damaged line${news.damaged > 1 ? "s are" : " is"} left out. ` : "";
      reading.textContent = lines + (news.preview ? "A long file: single updates are shown until all of it is read." : "");
    }
    const notes = [...(run.problem ? [run.problem] : []), ...run.notes].map(message);
    const alarms = run.alarms.length ? [make("h2", {}, "Alarms"), make("ul", {}, ...run.alarms.map((text) => make("li", {}, text)))] : [];
    const solve = make("section"), curves = new Curves(plots, run.stages);
    main.replaceChildren(make("p", { className: "soft" }, make("a", { href: "#/" }, "← all runs")), make("h1", {}, id), facts, ...notes, solve,
      make("h2", {}, "Learning curves"), reading, plots, ...alarms);
    curves.add(run.from, run.points);
    read(run);
    tell(run.state, run.points);
    if (!run.points.update) plots.replaceChildren(make("p", { className: "soft" }, "No update yet."));
    const events = new EventSource(`/api/events?${new URLSearchParams({ id, seen: run.seen.join(",") })}`);
    let first = true;
    events.onmessage = (event) => {
      const news = JSON.parse(event.data);
      if (!run.points.update) plots.replaceChildren();
      run.points = news.points;
      curves.add(news.from, news.points);
      read(news);
      tell(first ? run.state : "training", curves.points);
      first = false;
    };
    events.addEventListener("gone", (event) => {
      events.close();
      solve.before(message(JSON.parse(event.data)));
    });
    leave = () => {
      events.close();
      curves.close();
    };
    window.addEventListener("pagehide", leave, { once: true });
    try {
      await showSolve(solve, id, await ask("/api/agent", { id }), (await ask("/api/runs")).runs);
    } catch (error) {
      solve.replaceChildren(make("h2", {}, "Watch it think"), message(error.message));
    }
  }

  // Type a problem, and watch one or two agents solve it

  async function showSolve(root, id, agent, runs) {
    const name = (weights) => (weights === "best" ? "best weights" : `checkpoint at update ${Number(weights).toLocaleString("en")}`);
    const stage = make("select", {}, ...agent.stages.map((text) => make("option", { value: text }, text)));
    const problem = make("input", { type: "text", maxLength: 2000, autocomplete: "off", spellcheck: false, required: true });
    const temperature = make("input", { type: "number", min: "0", max: "10", step: "0.1", value: "0", required: true });
    const seed = make("input", { type: "number", min: "0", max: "4294967295", step: "1", value: "0", required: true });
    const weights = make("select", {}, ...agent.weights.map((text) => make("option", { value: text }, name(text))));
    const other = make("select", {}, make("option", { value: "" }, "nothing"),
      ...agent.weights.map((text) => make("option", { value: JSON.stringify([id, text]) }, `this run, ${name(text)}`)),
      ...runs.filter((run) => run.id !== id && !run.problem).slice(0, 1000).map((run) => make("option", { value: JSON.stringify([run.id, "best"]) }, run.id)));
    const together = make("input", { type: "checkbox", checked: true });
    const draw = make("button", { type: "button" }, "Draw a problem"), send = make("button", { type: "submit", className: "main" }, "Solve");
    const wrong = make("div"), side = make("div", { className: "side" });
    const form = make("form", { className: "tools" }, field("Stage", stage), field("Problem", problem, "wide"), draw, field("Temperature (0: greedy)", temperature),
      field("Seed", seed), field("Agent", weights), field("Beside it", other), make("label", { className: "check" }, together, "step together"), send);
    let drawn = 0, turn = 0;
    stage.value = agent.stages[agent.stages.length - 1];
    async function fill() {
      wrong.replaceChildren();
      try {
        problem.value = (await ask("/api/problem", { id, stage: stage.value, seed: drawn++ })).problem;
        return true;
      } catch (error) {
        wrong.replaceChildren(message(error.message));
        return false;
      }
    }
    async function solve() {
      const mine = ++turn;
      wrong.replaceChildren();
      const agents = [[id, weights.value], ...(other.value ? [JSON.parse(other.value)] : [])];
      const answers = await Promise.all(agents.map(([run, which]) => ask("/api/episode", {}, { run, weights: which, stage: stage.value,
        problem: problem.value, temperature: Number(temperature.value), seed: Number(seed.value) }).catch((error) => ({ error: error.message }))));
      if (mine !== turn) return;
      if (answers[0].error) {
        wrong.replaceChildren(message(answers[0].error));
        problem.setAttribute("aria-invalid", "true");
        side.replaceChildren();
        return;
      }
      problem.removeAttribute("aria-invalid");
      side.classList.toggle("two", answers.length > 1);
      const players = [];
      side.replaceChildren(...answers.map((answer, i) => {
        const [run, which] = agents[i], title = `${run}, ${name(which)}`;
        const box = make("section", { className: "player" }), parts = [make("h3", {}, title)];
        if (answer.error) return make("div", {}, ...parts, message(answer.error));
        parts.push(...answer.notes.map((text) => make("p", { className: "soft" }, text)));
        players.push(mountPlayer(box, [answer], { label: title, onStep: (at) => together.checked && players.forEach((p) => p.root !== box && p.go(at)) }));
        return make("div", {}, ...parts, box);
      }));
    }
    draw.addEventListener("click", async () => (await fill()) && solve());
    stage.addEventListener("change", async () => (await fill()) && solve());
    weights.addEventListener("change", () => problem.value && solve());
    other.addEventListener("change", () => problem.value && solve());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      solve();
    });
    root.replaceChildren(make("h2", {}, "Watch it think"), make("p", { className: "soft" },
      "Type a problem, or draw one. Step through the episode with the arrow keys, Home and End. With a temperature above 0, tokens are drawn with the seed."),
      ...agent.notes.map(message), form, wrong, side);
    if (!agent.parses) {
      problem.disabled = draw.disabled = send.disabled = true;
      wrong.replaceChildren(message("This task does not define parse(stage, text), which reads a problem that is typed."));
    } else if (await fill()) await solve();
  }

  async function route() {
    leave();
    leave = () => {};
    const [path, query] = location.hash.slice(1).split("?");
    try {
      if (path === "/run") await showRun(new URLSearchParams(query).get("id") || "");
      else await showList();
    } catch (error) {
      main.replaceChildren(make("p", { className: "soft" }, make("a", { href: "#/" }, "← all runs")), message(error.message));
    }
  }
  addEventListener("hashchange", () => {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
    route();
  });
  route();
})();
