// The studio's page: the list of runs, one run, and one sweep. All text is set as text, never as HTML.
"use strict";

(() => {
  const main = document.getElementById("main");
  const { make, ask, message, link, field, percent, scroll, table } = Studio;
  let leave = () => {};

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
    const problem = make("div"), swept = make("section");
    async function refresh() {
      try {
        found = await ask("/api/runs");
        document.getElementById("folder").textContent = found.folder;
        problem.replaceChildren();
        draw();
        const sweeps = JSON.stringify(found.sweeps);
        if (swept.dataset.shown !== sweeps) {
          swept.dataset.shown = sweeps;
          swept.replaceChildren(...Sweeps.listed(found.sweeps));
        }
      } catch (error) {
        problem.replaceChildren(message(error.message));
      }
    }
    document.title = "runs · modelnative studio";
    await refresh();
    main.replaceChildren(make("h1", {}, "Runs"), problem, make("div", { className: "tools", role: "search" }, field("Search", search, "wide"), field("State", state)),
      count, scroll("Runs", make("table", { className: "runs" }, make("thead", {}, head), body)), more, swept);
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
    const solve = make("section"), measured = make("section"), curves = new Curves(plots, run.stages);
    main.replaceChildren(make("p", { className: "soft" }, make("a", { href: "#/" }, "← all runs")), make("h1", {}, id), facts, ...notes, solve,
      make("h2", {}, "Learning curves"), reading, plots, ...alarms, make("h2", {}, "Certificate of the task"), measured);
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
    certificate(id).then((parts) => measured.replaceChildren(...parts), (error) => measured.replaceChildren(message(error.message)));
    try {
      await Solve.show(solve, id, await ask("/api/agent", { id }), (await ask("/api/runs")).runs);
    } catch (error) {
      solve.replaceChildren(make("h2", {}, "Watch it think"), message(error.message));
    }
  }

  // What the task asks for: the certificate, or the command that measures it.
  async function certificate(id) {
    const found = await ask("/api/certificate", { id });
    if (!found.head) return [make("p", { className: "soft" }, "Not measured yet: success without abilities, such as of random or memoryless agents. This command measures it (minutes):"), make("pre", {}, make("code", {}, found.command))];
    return [make("p", {}, make("strong", {}, found.conclusion)), scroll("Certificate", table(found.head, found.rows)), ...found.findings.map((text) => make("p", {}, text)),
      make("details", {}, make("summary", {}, "How the rates were reached"), make("ul", {}, ...found.details.map((text) => make("li", {}, text))))];
  }

  async function route() {
    leave();
    leave = () => {};
    const [path, query] = location.hash.slice(1).split("?");
    try {
      const id = new URLSearchParams(query).get("id") || "";
      if (path === "/run") await showRun(id);
      else if (path === "/sweep") await Sweeps.show(main, id);
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
