"use strict";
// Draws what the server says as JSON: {times | edges, begin, end, series: [{name, unit, values}], limits, marks}. Colours are
// those of the style.

const CHART_SECONDS = 60;
const HEIGHT = 190;

function colour(name) {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue(`--${name}`).trim() || style.getPropertyValue("--link").trim();
}

function short(number) {
  const size = Math.abs(number);
  if (size >= 1e6) return `${+(number / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(number / 1e3).toPrecision(3)}k`;
  return String(+number.toPrecision(4));
}

function axes(extra) {
  const line = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  return [{ ...line, ...extra, grid: { show: false } }, { ...line, size: 52, values: (_, marks) => marks.map(short) }];
}

// Each area stands on those before it; uPlot draws the sums and fills between them.
function stacked(data, stepped) {
  const sums = new Array(data.times.length).fill(0);
  const values = data.series.map((one) => one.values.map((value, at) => (sums[at] += value)));
  const series = data.series.map((one, at) => ({
    label: one.name,
    stroke: colour(one.name),
    fill: colour(one.name),
    width: 1,
    points: { show: false },
    paths: stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    value: (_, __, ___, at_) => (at_ === null ? "–" : short(one.values[at_])),
  }));
  // The highest sum is painted first, so that the lower ones lie over it.
  return { values: values.reverse(), series: series.reverse() };
}

function lines(data) {
  return {
    values: data.series.map((one) => one.values),
    series: data.series.map((one) => ({
      label: one.name,
      stroke: colour(one.name),
      width: 2,
      spanGaps: true,
      points: { show: data.times.length < 3 },
      value: (_, value) => (value === null ? "–" : `${short(value)}${one.unit ? ` ${one.unit}` : ""}`),
    })),
  };
}

function rule(plot, from, to, name, dash) {
  const pen = plot.ctx;
  pen.save();
  pen.strokeStyle = colour(name);
  pen.lineWidth = 2 * devicePixelRatio;
  pen.setLineDash(dash.map((part) => part * devicePixelRatio));
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
  pen.restore();
}

// Limits are lines across; in a histogram, from bottom to top. Marks are changes of status.
function overlay(data, kind) {
  return (plot) => {
    const box = plot.bbox;
    for (const limit of data.limits ?? []) {
      const axis = kind === "histogram" ? "x" : "y";
      const scale = plot.scales[axis];
      if (limit < scale.min || limit > scale.max) continue;
      const at = plot.valToPos(limit, axis, true);
      if (axis === "x") rule(plot, [at, box.top], [at, box.top + box.height], "Failed", [6, 4]);
      else rule(plot, [box.left, at], [box.left + box.width, at], "Failed", [6, 4]);
    }
    for (const mark of data.marks ?? []) {
      const at = plot.valToPos(mark.time, "x", true);
      if (at < box.left || at > box.left + box.width) continue;
      rule(plot, [at, box.top], [at, box.top + box.height], mark.status, [2, 3]);
    }
  };
}

function options(data, kind, width) {
  const clock = [["%Y-%m-%d"], ["%H:%M"]];
  const shared = {
    width, height: HEIGHT,
    legend: { live: true },
    cursor: { points: { size: 6 }, drag: { x: false } },
    hooks: { draw: [overlay(data, kind)] },
  };
  if (kind === "histogram") {
    const [one] = data.series;
    return {
      options: {
        ...shared,
        scales: { x: { time: false, distr: 3, range: () => [data.edges[0], data.edges[data.edges.length - 1]] } },
        axes: axes({ values: (_, marks) => marks.map((mark) => (mark === null ? "" : short(mark))) }),
        series: [
          { label: one.unit, value: (_, value) => (value === null ? "–" : short(value)) },
          {
            label: one.name, stroke: colour("Running"), fill: colour("Running"), width: 1, points: { show: false },
            paths: uPlot.paths.stepped({ align: 1 }),
          },
        ],
      },
      values: [data.edges, [...one.values, 0]],
    };
  }
  const drawn = kind === "lines" ? lines(data) : stacked(data, kind === "stacked-steps");
  const top = Math.max(1e-9, ...(kind === "lines" ? data.limits ?? [] : []));
  return {
    options: {
      ...shared,
      scales: { x: { range: (_, least, most) => [data.begin ?? least, data.end ?? most] }, y: { range: (_, __, most) => [0, Math.max(most ?? 0, top < 4 * (most ?? 0) ? top : 0) * 1.08 || 1] } },
      axes: axes({ values: [
        [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 0],
        [3600, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 0],
        [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 0],
        [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 0],
      ] }),
      series: [{ value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...drawn.series],
    },
    values: [data.times, ...drawn.values],
  };
}

async function draw(element) {
  const reply = await fetch(element.dataset.source, { headers: { Accept: "application/json" } });
  if (!reply.ok) return;
  const data = await reply.json();
  const empty = !data.series.some((one) => one.values.some((value) => value));
  element.replaceChildren();
  if (empty) {
    const note = document.createElement("p");
    note.className = "soft";
    note.textContent = "Nothing to draw yet.";
    element.append(note);
    return;
  }
  const { options: how, values } = options(data, element.dataset.kind, element.clientWidth);
  const plot = new uPlot(how, values, element);
  new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT })).observe(element);
}

function drawAll() {
  if (!document.hidden) document.querySelectorAll(".plot[data-source]").forEach(draw);
}

document.addEventListener("DOMContentLoaded", () => {
  drawAll();
  setInterval(drawAll, CHART_SECONDS * 1000);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
});
document.addEventListener("htmx:load", (event) => event.target.querySelectorAll?.(".plot[data-source]:empty").forEach(draw));
