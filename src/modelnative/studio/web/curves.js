// Learning curves with uPlot: one figure for each kind of number, redrawn as points arrive.
"use strict";

const Curves = (() => {
  const COLORS = ["#2a9d8f", "#d17a00", "#d1495b", "#5b7fd1", "#8e6bbf"];
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5]];
  const BORDERS = ["solid", "dashed", "dotted", "double", "dashed"];
  const KINDS = [
    ["Success", "of episodes without a hint, smoothed", /^success \d+$/, [0, 1]],
    ["Entropy", "of the token distribution, in nats", /^entropy$/, null],
    ["Approximate KL", "between old and new policy, in nats", /^approximate_kl$/, null],
    ["Clip fraction", "share of tokens whose ratio was clipped", /^clip_fraction$/, null],
    ["Explained variance", "of the returns, by the value head", /^explained_variance$/, null],
    ["Gradient norm", "before clipping", /^gradient_norm$/, null],
    ["Wasted actions", "per episode: actions without effect", /^invalid$/, null],
    ["Speed", "steps per second", /^speed$/, null],
  ];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  return class {
    // root: element; stages: names.
    constructor(root, stages) {
      this.root = root;
      this.stages = stages;
      this.points = {};
      this.plots = new Map();
      this.resized = new ResizeObserver(() => this.fit());
      this.resized.observe(root);
      this.theme = matchMedia("(prefers-color-scheme: dark)");
      this.rebuild = () => this.redraw();
      this.theme.addEventListener("change", this.rebuild);
    }
    close() {
      this.resized.disconnect();
      this.theme.removeEventListener("change", this.rebuild);
      this.plots.forEach(({ plot }) => plot.destroy());
      this.plots.clear();
    }
    // Puts points in the place of those from a number on.
    add(start, points) {
      const length = start + (points.update || []).length;
      for (const name of new Set([...Object.keys(this.points), ...Object.keys(points)])) {
        const kept = (this.points[name] || []).slice(0, start);
        while (kept.length < start) kept.push(null);
        kept.push(...(points[name] || []));
        while (kept.length < length) kept.push(null);
        this.points[name] = kept;
      }
      for (const [title, meaning, pattern, range] of KINDS) {
        const names = Object.keys(this.points).filter((name) => pattern.test(name)).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
        if (names.length && this.points.update.length) this.show(title, meaning, names, range);
      }
    }
    show(title, meaning, names, range) {
      const data = [this.points.update, ...names.map((name) => this.points[name])];
      let shown = this.plots.get(title);
      if (shown && shown.names.length !== names.length) {
        shown.plot.destroy();
        shown.box.replaceChildren();
        shown.plot = null;
      }
      if (!shown) {
        const box = document.createElement("div"), figure = document.createElement("figure"), caption = document.createElement("figcaption");
        const small = document.createElement("small");
        small.textContent = meaning;
        caption.append(`${title} `, small);
        figure.className = "plot";
        figure.append(caption, box);
        this.root.append(figure);
        shown = { box, plot: null };
        this.plots.set(title, shown);
      }
      Object.assign(shown, { title, meaning, names, range });
      if (shown.plot) shown.plot.setData(data);
      else shown.plot = this.plot(shown, data);
    }
    plot({ box, names, range }, data) {
      const soft = style("--soft"), grid = { stroke: style("--line"), width: 1 };
      const axis = { stroke: soft, grid, ticks: { show: false }, font: "12px system-ui", size: 44 };
      const label = (name) => (name.startsWith("success ") ? this.stages[name.slice(8)] || name.replace("success", "stage") : "mean");
      const text = (u, v) => (v === null || v === undefined ? "–" : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : v.toPrecision(3));
      const series = names.map((name, i) => ({ label: label(name), stroke: COLORS[i % COLORS.length], width: 2, dash: DASHES[i % DASHES.length],
        spanGaps: true, value: text, points: { show: data[0].length < 2 } }));
      return new uPlot({
        width: this.width(box), height: 170, legend: { live: true, markers: { dash: (u, i) => BORDERS[(i - 1) % BORDERS.length] } }, cursor: { y: false, drag: { x: true, y: false } },
        scales: { x: { time: false }, y: range ? { range: [range[0] - 0.02, range[1] + 0.05] } : {} },
        axes: [{ ...axis, size: 30, space: 60 }, { ...axis, values: (u, all) => all.map((v) => (Math.abs(v) >= 1000 ? `${v / 1000}k` : `${+v.toPrecision(6)}`)) }],
        series: [{ label: "update", value: text }, ...series],
      }, data, box);
    }
    width(box) {
      return Math.max(160, Math.floor(box.getBoundingClientRect().width || 300));
    }
    fit() {
      this.plots.forEach(({ plot, box }) => plot && plot.width !== this.width(box) && plot.setSize({ width: this.width(box), height: 170 }));
    }
    redraw() {
      this.plots.forEach((shown) => {
        shown.plot.destroy();
        shown.box.replaceChildren();
        shown.plot = this.plot(shown, [this.points.update, ...shown.names.map((name) => this.points[name])]);
      });
    }
  };
})();
