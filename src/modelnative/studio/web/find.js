// Episodes by kind: those that fail, succeed, take longest, waste actions, or depart from the oracle.
"use strict";

const Find = (() => {
  const { make, ask, work, field, options, scroll, table } = Studio;
  const KINDS = [["wrong", "wrong"], ["right", "right"], ["longest", "the longest"], ["invalid", "with actions without effect"], ["departs", "that depart from the oracle"]];

  // asked: () -> { run, weights, stage }; open: plays a problem.
  function panel({ asked, open, agent }) {
    const kind = make("select", {}, ...options(KINDS.filter(([name]) => name !== "departs" || agent.oracle)));
    const send = make("button", { type: "submit" }, "Find"), box = make("div");
    const form = make("form", { className: "tools" }, field("Episodes", kind), send);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      work(send, box, async () => {
        const found = await ask("/api/find", {}, { ...asked(), kind: kind.value });
        const told = make("p", { className: "soft", role: "status" }, `${found.episodes.length ? `${found.episodes.length} episodes` : "None"} among ${
          found.played.toLocaleString("en")} problems of the stage that were played greedily.`);
        if (!found.episodes.length) return told;
        const rows = found.episodes.map((episode) => [make("button", { type: "button", onclick: () => open(episode.problem) }, episode.problem),
          episode.success ? "✓ right" : "✗ wrong", String(episode.length), String(episode.invalid), episode.departure === null ? "–" : `at ${episode.departure}`]);
        return [told, make("div", { className: "tall" }, scroll("Episodes", table(["problem", "verdict", "actions", "without effect", "departs"], rows, "found")))];
      });
    });
    return { root: make("details", { className: "panel" }, make("summary", {}, "Find episodes: wrong, longest, departing …"), form, box), refresh: () => box.replaceChildren() };
  }
  return { panel };
})();
