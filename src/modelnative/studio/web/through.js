// One problem through the training: the episodes of all stored checkpoints, scrubbed with a slider.
"use strict";

const Through = (() => {
  const { make, ask, work } = Studio;

  // How many of the first tokens are those of a program.
  function agreed(episode, program) {
    const same = episode.tokens.findIndex((token, i) => token.token !== program[i]);
    return same < 0 ? Math.min(episode.tokens.length, program.length) : same;
  }

  function panel({ asked, agent }) {
    const start = make("button", { type: "button" }, "Play it by every checkpoint"), box = make("div");
    const hint = `The run keeps its newest ${agent.kept} checkpoint${agent.kept > 1 ? "s" : ""}, one every ${agent.every} updates. More: modelnative train --keep-checkpoints 100 --checkpoint-every 5.`;

    async function load() {
      const found = await ask("/api/through", {}, asked()), stored = found.checkpoints;
      if (!stored.length) return make("p", {}, found.notes.join(" ") || "There are no checkpoints.");
      // The plan that the training arrived at; where that is wrong, the oracle's.
      const last = stored[stored.length - 1].episode, own = last.success || !last.oracle.length;
      const program = own ? last.tokens.map((token) => token.token) : last.oracle;
      const slider = make("input", { type: "range", min: "0", max: String(stored.length - 1), step: "1", "aria-label": "Checkpoint" });
      const status = make("p", { className: "words", role: "status" }), rows = [];
      const player = make("section", { className: "player" });
      let mounted = null;
      function go(index) {
        const { update, episode } = stored[index], at = mounted ? mounted.at : 0;
        const top = rows[index].offsetTop, height = holder.clientHeight; // read before anything changes the layout
        slider.value = String(index);
        slider.setAttribute("aria-valuetext", `update ${update}`);
        status.textContent = `Update ${update.toLocaleString("en")}: ${episode.success ? "✓ right" : "✗ wrong"}; ${agreed(episode, program)} of ${program.length} tokens as ${
          own ? "the last checkpoint" : "the oracle"} writes them.`;
        holder.scrollTop = top - height / 2;
        rows.forEach((row, i) => row.classList.toggle("now", i === index));
        if (mounted) mounted.show(episode, at);
        else mounted = mountPlayer(player, [episode], { label: "Episode of the checkpoint" });
      }
      const body = make("tbody", {}, ...stored.map(({ update, episode }, index) => {
        const button = make("button", { type: "button", onclick: () => go(index) }, update.toLocaleString("en"));
        const tokens = episode.tokens.map((token, i) => make("span", { className: token.token === program[i] ? "same" : "other" }, token.token));
        const row = make("tr", {}, make("th", { scope: "row", className: "n" }, button), make("td", {}, episode.success ? "✓" : "✗"), make("td", { className: "tokens" }, ...tokens));
        rows.push(row);
        return row;
      }));
      const holder = make("div", { className: "scroll tall through", tabIndex: 0, role: "region", "aria-label": "Tokens of every checkpoint" }, make("table", {}, make("thead", {}, make("tr", {},
        make("th", { scope: "col", className: "n" }, "update"), make("th", { scope: "col" }, "right"), make("th", { scope: "col" }, "tokens; framed: as in that program"))), body));
      slider.addEventListener("input", () => go(Number(slider.value)));
      const right = stored.findIndex((_, i) => stored.slice(i).every(({ episode }) => episode.success));
      const since = right < 0 ? "The newest checkpoint does not solve it." : right ? `Right since update ${stored[right].update.toLocaleString("en")}.` : "Every stored checkpoint solves it.";
      go(stored.length - 1);
      requestAnimationFrame(() => go(stored.length - 1)); // once it has a size to scroll in
      return [make("p", {}, since), ...found.notes.map((text) => make("p", { className: "soft" }, text)), make("div", { className: "scrub" }, slider), status, holder, player];
    }
    start.addEventListener("click", () => work(start, box, load));
    const root = make("details", { className: "panel" }, make("summary", {}, "Through the training: when did the plan appear?"), make("p", { className: "soft" }, hint), make("p", {}, start), box);
    return { root, refresh: () => box.replaceChildren() };
  }
  return { panel };
})();
