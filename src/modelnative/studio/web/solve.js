// Watch an agent think: type a problem, and see one or two agents solve it; and look inside from there.
"use strict";

const Solve = (() => {
  const { make, ask, message, field, options, weightsName } = Studio;

  async function show(root, id, agent, runs) {
    const stage = make("select", {}, ...options(agent.stages.map((text) => [text, text])));
    const problem = make("input", { type: "text", maxLength: 2000, autocomplete: "off", spellcheck: false, required: true });
    const temperature = make("input", { type: "number", min: "0", max: "10", step: "0.1", value: "0", required: true });
    const seed = make("input", { type: "number", min: "0", max: "4294967295", step: "1", value: "0", required: true });
    const weights = make("select", {}, ...options(agent.weights.map((text) => [text, weightsName(text)])));
    const other = make("select", {}, ...options([["", "nothing"], ...agent.weights.map((text) => [JSON.stringify([id, text]), `this run, ${weightsName(text)}`]),
      ...runs.filter((run) => run.id !== id && !run.problem).slice(0, 1000).map((run) => [JSON.stringify([run.id, "best"]), run.id])]));
    const together = make("input", { type: "checkbox", checked: true });
    const draw = make("button", { type: "button" }, "Draw a problem"), send = make("button", { type: "submit", className: "main" }, "Solve");
    const wrong = make("div"), side = make("div", { className: "side" });
    const form = make("form", { className: "tools" }, field("Stage", stage), field("Problem", problem, "wide"), draw, field("Temperature (0: greedy)", temperature),
      field("Seed", seed), field("Agent", weights), field("Beside it", other), make("label", { className: "check" }, together, "step together"), send);
    let drawn = 0, turn = 0, filled = 0, answers = [], agents = [];
    stage.value = agent.stages[agent.stages.length - 1];

    const asked = () => ({ run: id, weights: weights.value, stage: stage.value, problem: problem.value });
    // By weights: the run's own inspection is of the best ones.
    const carried = { best: await Inside.carried(id) };
    const inside = Inside.panel({ asked, inspected: (which, found) => { carried[which] = { ...carried[which], ...found }; place(); } });
    const panels = [inside, Through.panel({ asked, agent }), Find.panel({ asked, agent, open: (text) => { problem.value = text; solve(); side.scrollIntoView({ block: "nearest" }); } })];

    // Draws a problem; what is typed meanwhile stays.
    async function fill() {
      const mine = ++filled;
      wrong.replaceChildren();
      try {
        const found = (await ask("/api/problem", { id, stage: stage.value, seed: drawn++ })).problem;
        if (mine === filled) problem.value = found;
        return mine === filled;
      } catch (error) {
        wrong.replaceChildren(message(error.message));
        return false;
      }
    }
    // Puts the players of the answers into the page.
    function place() {
      side.classList.toggle("two", answers.length > 1);
      const players = [];
      side.replaceChildren(...answers.map((answer, i) => {
        const [run, which] = agents[i], title = `${run}, ${weightsName(which)}`;
        const box = make("section", { className: "player" }), parts = [make("h3", {}, title)];
        if (answer.error) return make("div", {}, ...parts, message(answer.error));
        parts.push(...answer.notes.map((text) => make("p", { className: "soft" }, text)));
        const inner = i === 0 ? { carried: carried[which] || {}, onCell: inside.choose } : {};
        players.push(mountPlayer(box, [answer], { label: title, onStep: (at) => together.checked && players.forEach((p) => p.root !== box && p.go(at)), ...inner }));
        return make("div", {}, ...parts, box);
      }));
    }
    async function solve() {
      const mine = ++turn;
      wrong.replaceChildren();
      const chosen = [[id, weights.value], ...(other.value ? [JSON.parse(other.value)] : [])];
      const found = await Promise.all(chosen.map(([run, which]) => ask("/api/episode", {}, { run, weights: which, stage: stage.value,
        problem: problem.value, temperature: Number(temperature.value), seed: Number(seed.value) }).catch((error) => ({ error: error.message }))));
      if (mine !== turn) return;
      if (found[0].error) {
        wrong.replaceChildren(message(found[0].error));
        problem.setAttribute("aria-invalid", "true");
        side.replaceChildren();
        panels.forEach((panel) => { panel.root.hidden = true; });
        return;
      }
      problem.removeAttribute("aria-invalid");
      [answers, agents] = [found, chosen];
      place();
      panels.forEach((panel) => {
        panel.root.hidden = false;
        panel.refresh(found[0].tokens.length);
      });
    }
    problem.addEventListener("input", () => { filled++; });
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
      ...agent.notes.map(message), form, wrong, side, ...panels.map((panel) => panel.root));
    if (!agent.parses) {
      problem.disabled = draw.disabled = send.disabled = true;
      panels.forEach((panel) => { panel.root.hidden = true; });
      wrong.replaceChildren(message("This task does not define parse(stage, text), which reads a problem that is typed."));
    } else if (await fill()) await solve();
  }
  return { show };
})();
