// The loss of a run as a line, and its scores: one small chart.

import { element, svg } from "./element.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [320, 140, 44, 20];

/** A chart of [[step, value], ...]; `name` is the legend. Null with fewer than two points. */
export function curve(name, points) {
  const finite = points.filter(([, value]) => Number.isFinite(value));
  if (finite.length < 2) return null;
  const steps = finite.map(([step]) => step);
  const shown = smoothed(finite.map(([, value]) => value));
  const [low, high] = [Math.min(...shown), Math.max(...shown)];
  const x = (step) => LEFT + ((step - steps[0]) / (steps.at(-1) - steps[0] || 1)) * (WIDTH - LEFT - 6);
  const y = (value) => 8 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - BOTTOM - 12);
  const path = shown
    .map((value, i) => `${i ? "L" : "M"}${x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}`)
    .join("");
  const text = (value, left, top, anchor) => svg("text", { x: left, y: top, "text-anchor": anchor }, value);
  const chart = svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "chart",
      role: "img",
      "aria-label": `${name}, now ${short(shown.at(-1))}`,
    },
    svg("path", { d: `M${LEFT} 4V${HEIGHT - BOTTOM}H${WIDTH}`, class: "axis" }),
    svg("path", { d: path, class: "line" }),
    text(short(high), LEFT - 5, 14, "end"),
    high > low ? text(short(low), LEFT - 5, HEIGHT - BOTTOM, "end") : null,
    text(String(steps[0]), LEFT, HEIGHT - 5, "start"),
    text(`step ${steps.at(-1)}`, WIDTH - 2, HEIGHT - 5, "end"),
  );
  const caption = element("figcaption", {}, `${name}: ${short(finite.at(-1)[1])}`);
  return element("figure", {}, caption, chart);
}

const short = (value) => (Math.abs(value) < 0.1 ? value.toPrecision(2) : value.toFixed(3).slice(0, 5));

/** A running mean over a fortieth of the points: single steps of a diffusion loss vary tenfold. */
function smoothed(values) {
  const window = Math.max(1, Math.round(values.length / 40));
  return values.map((_, i) => {
    const near = values.slice(Math.max(0, i - window), i + window + 1);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}
