// A look inside: what is carried where, and switches that replace something in the episode that is shown.
"use strict";

const Inside = (() => {
  const { make, ask, work, field, options, message } = Studio;
  const SOURCES = { donor: "another problem's", zero: "0", mean: "its mean over problems", blank: "nothing", start: "as at the start" };

  // What `inspect` found in a stage: from the run's inspect.json, else null.
  async function carried(id) {
    const found = await ask("/api/inspection", { id }).catch(() => ({ stages: [] }));
    return Object.fromEntries(found.stages.map((stage) => [stage.stage, stage]));
  }

  // asked: () -> { run, weights, stage, problem } of the episode; inspected: gets the weights and what was found in them.
  function panel({ asked, inspected }) {
    const carrier = make("select", {}), source = make("select", {}), key = make("select", {});
    const donor = make("input", { type: "text", maxLength: 2000, autocomplete: "off", spellcheck: false });
    const draw = make("button", { type: "button" }, "Draw a donor"), send = make("button", { type: "submit", className: "main" }, "Replace");
    const look = make("button", { type: "button" }, "Inspect this stage"), box = make("div"), told = make("div");
    const donorField = field("Donor problem", donor, "wide");
    const form = make("form", { className: "tools" }, field("Replace", carrier), field("by", source), field("before action", key), donorField, draw, send);
    let carriers = [], drawn = 1000, turn = 0, waiting = 0;

    function sources() {
      const chosen = source.value, found = (carriers.find((c) => c.name === carrier.value) || { sources: [] }).sources;
      source.replaceChildren(...options(found.map((name) => [name, SOURCES[name] || name])));
      if (found.includes(chosen)) source.value = chosen;
      donorField.hidden = draw.hidden = source.value !== "donor";
    }
    async function drawDonor() {
      donor.value = (await ask("/api/problem", { id: asked().run, stage: asked().stage, seed: drawn++ })).problem;
    }
    // Of a new episode of some actions; its choices are asked for once they are seen.
    function refresh(length) {
      turn++;
      waiting = length;
      send.disabled = true;
      box.replaceChildren();
      told.replaceChildren();
      return root.open ? load() : null;
    }
    async function load() {
      const mine = turn, length = waiting;
      if (!length) return;
      waiting = 0;
      const chosen = [carrier.value, key.value];
      try {
        const found = (await ask("/api/choices", {}, asked())).carriers;
        if (mine !== turn) return;
        carriers = found;
        carrier.replaceChildren(...options(carriers.map(({ name }) => [name, name])));
        key.replaceChildren(...options([["0", "every one"], ...Array.from({ length }, (_, i) => [String(i + 1), String(i + 1)])]));
        carrier.value = carriers.some(({ name }) => name === chosen[0]) ? chosen[0] : (carriers.find(({ name }) => name === "hidden state") || carriers[0]).name;
        key.value = Number(chosen[1]) <= length && chosen[1] ? chosen[1] : "1";
        sources();
        if (donor.dataset.stage !== asked().stage) {
          await drawDonor();
          donor.dataset.stage = asked().stage;
        }
        send.disabled = mine !== turn;
      } catch (error) {
        box.replaceChildren(message(error.message));
      }
    }
    async function replace() {
      const found = await ask("/api/switch", {}, { ...asked(), carrier: carrier.value, source: source.value, key: Number(key.value), donor: donor.value });
      const marked = { ...found.changed, switch: found.switch, baseline: found.own.tokens.map((token) => token.token) };
      const shown = [["undisturbed", found.own], [`${carrier.value} replaced`, marked], ...(found.donor ? [["donor, undisturbed", found.donor]] : [])];
      const players = [];
      const columns = shown.map(([title, episode]) => {
        const root = make("section", { className: "player" });
        players.push(mountPlayer(root, [episode], { label: title, onStep: (at) => players.forEach((p) => p.root !== root && p.go(at)) }));
        return make("div", {}, make("h4", {}, title), root);
      });
      const first = found.switch.key ? found.switch.key - 1 : 0;
      players.forEach((p) => p.go(first));
      return [make("p", { className: "words", role: "status" }, found.words), make("div", { className: `side ${columns.length > 2 ? "three" : "two"}` }, ...columns)];
    }
    carrier.addEventListener("change", sources);
    source.addEventListener("change", () => { donorField.hidden = draw.hidden = source.value !== "donor"; });
    draw.addEventListener("click", () => drawDonor().catch((error) => box.replaceChildren(message(error.message))));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      work(send, box, replace);
    });
    look.addEventListener("click", () => work(look, told, async () => {
      const which = asked().weights, found = await ask("/api/inspect", {}, asked());
      inspected(which, Object.fromEntries(found.stages.map((stage) => [stage.stage, stage])));
      return [make("p", { className: "soft" }, `From ${found.pairs} pairs of problems, without probes; the table is beside the player. More, with probes: modelnative inspect RUN.`),
        ...found.stages.flatMap((stage) => stage.words.map((text) => make("p", {}, text)))];
    }));
    const root = make("details", { className: "panel" }, make("summary", {}, "Inside: what is carried, and what happens without it"),
      make("p", { className: "soft" }, "Replace something that the agent has before an action, and see the rest of the episode change. Episodes are greedy here. One shows that it can matter; how often it does, over many pairs of problems, is what an inspection says."),
      form, box, make("p", {}, look), told);
    root.addEventListener("toggle", () => root.open && load());
    return { root, refresh, choose: async (name, at) => {
      await load();
      root.open = true;
      carrier.value = name;
      sources();
      key.value = String(at);
      work(send, box, replace);
    } };
  }
  return { carried, panel };
})();
