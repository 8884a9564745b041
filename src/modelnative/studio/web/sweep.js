// Sweeps and folders of `train --seeds`: groups over seeds with intervals, and the trials.
"use strict";

const Sweeps = (() => {
  const { make, ask, link, percent, scroll, table } = Studio;
  const SVG = "http://www.w3.org/2000/svg", WIDTH = 320, ROW = 26;
  const UNITS = { success: "share of problems solved", updates: "updates", seconds: "seconds of training" };
  const sweepLink = (id, text = id) => make("a", { href: `#/sweep?${new URLSearchParams({ id })}` }, text);
  const number = (metric, value) => (metric === "success" ? value.toFixed(3) : value >= 1000 ? Math.round(value).toLocaleString("en") : +value.toPrecision(3));
  const span = (metric, ends) => (ends ? ` [${number(metric, ends[0])}, ${number(metric, ends[1])}]` : "");

  function shape(name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }
  // A dot for each seed; the interquartile mean as a tick in its interval. Numbers are in the table below it.
  function dots(groups, metric) {
    const known = groups.filter((group) => group.metrics[metric]);
    const all = known.flatMap((group) => [...group.metrics[metric].values, group.metrics[metric].iqm.low, group.metrics[metric].iqm.high]);
    const low = metric === "success" ? 0 : Math.min(...all), high = metric === "success" ? 1 : Math.max(...all, low + 1e-9);
    const x = (value) => 8 + ((WIDTH - 16) * (value - low)) / (high - low);
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${ROW * known.length + 18}`, class: "dots", "aria-hidden": "true" });
    known.forEach((group, i) => {
      const { values, iqm } = group.metrics[metric], y = ROW * i + 12;
      svg.append(shape("line", { x1: 8, x2: WIDTH - 8, y1: y, y2: y, class: "axis" }));
      values.forEach((value, k) => svg.append(shape("circle", { cx: x(value), cy: y + (values.length > 1 ? 6 * ((2 * k) / (values.length - 1) - 1) : 0), r: 3 })));
      svg.append(shape("line", { x1: x(iqm.low), x2: x(iqm.high), y1: y, y2: y, class: "interval" }), shape("line", { x1: x(iqm.value), x2: x(iqm.value), y1: y - 8, y2: y + 8, class: "interval" }));
    });
    const label = (value, anchor, at) => {
      const text = shape("text", { x: at, y: ROW * known.length + 13, "text-anchor": anchor });
      text.textContent = number(metric, value);
      return text;
    };
    svg.append(label(low, "start", 8), label(high, "end", WIDTH - 8));
    return svg;
  }

  function figure(sweep, metric) {
    const rows = sweep.groups.filter((group) => group.metrics[metric]).map((group) => {
      const { median, interval, iqm } = group.metrics[metric], pair = (sweep.against[metric] || []).find((p) => p.label === group.label);
      return [group.label, `${number(metric, median)}${span(metric, interval)}`, `${number(metric, iqm.value)}${span(metric, [iqm.low, iqm.high])}`, pair ? pair.verdict : "–"];
    });
    if (!rows.length) return "";
    return make("figure", {}, make("figcaption", {}, `${metric} `, make("small", {}, `${UNITS[metric]}; a dot for each seed, the interquartile mean with its 95% interval`)),
      dots(sweep.groups, metric), scroll(`${metric} of the groups`, table(["group", "median [95% bootstrap, from 6 seeds on]", "IQM [95%]", "against the first"], rows, "groups")));
  }

  async function show(main, id) {
    document.title = `${id} · modelnative studio`;
    const sweep = await ask("/api/sweep", { id });
    const solved = table(["group", "solved every problem", "95% Wilson"], sweep.groups.map((group) => [group.label, `${group.solved} of ${group.trials}`,
      `[${group.interval[0].toFixed(3)}, ${group.interval[1].toFixed(3)}]`]), "groups");
    const trials = table(["trial", "state", "solved", "success", "updates", "seconds"], sweep.trials.map((trial) => [
      trial.begun ? link(trial.run, trial.trial) : trial.trial, trial.reason ? `${trial.status}: ${trial.reason}` : trial.status,
      trial.solved === null ? "–" : trial.solved ? "yes" : "no", percent(trial.success), trial.updates === null ? "–" : trial.updates.toLocaleString("en"),
      trial.seconds === null ? "–" : trial.seconds.toFixed(1)]), "trials");
    main.replaceChildren(make("p", { className: "soft" }, make("a", { href: "#/" }, "← all runs")), make("h1", {}, id), ...sweep.notes.map((text) => make("p", {}, text)),
      ...(sweep.groups.length ? [make("h2", {}, "Groups over seeds"), scroll("Solved trials", solved), make("div", { className: "sweep" }, ...Object.keys(UNITS).map((metric) => figure(sweep, metric)))] :
        [make("p", {}, `No trial has a result yet. Continue the sweep with: ${sweep.resume}`)]),
      make("h2", {}, "Trials"), scroll("Trials", trials));
  }

  // The list above the runs.
  function listed(sweeps) {
    if (!sweeps.length) return [];
    const rows = sweeps.map((sweep) => [sweepLink(sweep.id, sweep.id === "." ? "(this folder)" : sweep.id), `${sweep.finished} of ${sweep.begun} begun trials finished`]);
    return [make("h2", {}, "Sweeps and seeds"), scroll("Sweeps", table(["sweep", "trials"], rows, "sweeps"))];
  }
  return { show, listed };
})();
