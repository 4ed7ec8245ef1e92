// Results side by side, and one of them large beside its background.

import { button, element } from "./element.js";
import { path, withQuery } from "./api.js";
import { Compare } from "./compare.js";

/** A result's picture for the comparison. */
export const resultSource = (result) => ({
  ...sourceOf(result, "Result", ["results", result.id], "image"),
  region: regionOf(result),
});

/** The box [x0, y0, x1, y1] around all that was drawn; null: unknown, or most of the picture. */
function regionOf({ regions, width, height }) {
  if (!regions.length) return null;
  const edge = (i, pick) => pick(...regions.map((box) => box[i]));
  const box = [edge(0, Math.min), edge(1, Math.min), edge(2, Math.max), edge(3, Math.max)];
  const [w, h] = [box[2] - box[0], box[3] - box[1]];
  return w * h < 0.5 * width * height ? box : null;
}

/** Where a result's small picture comes from: what was drawn, if that is a small part of it, else all of it. */
function thumbOf(result) {
  const box = regionOf(result);
  if (!box) return withQuery(path("results", result.id, "image"), { max: 512 });
  const [x, y, x1, y1] = box;
  return withQuery(path("results", result.id, "tile"), { x, y, w: x1 - x, h: y1 - y, max: 512 });
}

/** The background that a result was made on; its tiles are there if the studio has it. */
export function beforeSource(result) {
  const source = sourceOf(result, "Before", ["results", result.id], "before");
  const { tile } = sourceOf(result, "", ["backgrounds", result.background], "");
  return result.placements.length ? { ...source, tile } : { ...source, tile: null };
}

function sourceOf({ width, height }, label, parts, image) {
  return {
    label,
    width,
    height,
    proxy: (max) => withQuery(path(...parts, image), { max }),
    tile: (x, y, w, h) => withQuery(path(...parts, "tile"), { x, y, w, h, max: Math.max(w, h) }),
  };
}

/** Links that download a result's full file and its recipe. */
export const downloads = (result) => [
  element("a", { class: "button", href: path("results", result.id, "file"), download: "" }, "Download"),
  element(
    "a",
    { class: "button", href: path("results", result.id, "recipe"), download: `${result.id}.json` },
    "Recipe",
  ),
];

/** A grid of results: each opens large; with its seed and downloads. */
export function resultGrid(results) {
  return element(
    "div",
    { class: "grid" },
    results.map((result) =>
      element(
        "figure",
        { class: "card" },
        element(
          "button",
          {
            type: "button",
            class: "picture",
            onclick: () => openLarge(result),
            title: "Compare with the background",
          },
          element("img", {
            src: thumbOf(result),
            alt: `Result with seed ${result.seed}`,
          }),
        ),
        element(
          "figcaption",
          {},
          element("a", { href: `#results/${encodeURIComponent(result.id)}` }, `Seed ${result.seed}`),
          downloads(result),
        ),
      ),
    ),
  );
}

function openLarge(result) {
  const place = element("div", { class: "place" });
  const dialog = element(
    "dialog",
    { class: "large", "aria-label": "Result and background", onclose: () => leave() },
    element(
      "div",
      { class: "row" },
      element("h3", {}, `${result.name}, seed ${result.seed}`),
      element("span", { class: "space" }),
      downloads(result),
      button("Close", () => dialog.close()),
    ),
    place,
  );
  document.body.append(dialog);
  dialog.showModal();
  const compare = new Compare(place, resultSource(result), beforeSource(result));
  compare.stage.focus();
  const leave = () => {
    compare.close();
    dialog.remove();
  };
}
