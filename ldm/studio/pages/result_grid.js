// Results side by side, and one of them large beside its background.

import { button, element } from "./element.js";
import { path, withQuery } from "./api.js";
import { Compare } from "./compare.js";

/** A result's picture for the comparison. */
export const resultSource = (result) => sourceOf(result, "Result", ["results", result.id], "image");

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
            src: withQuery(path("results", result.id, "image"), { max: 512 }),
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
  const leave = () => {
    compare.close();
    dialog.remove();
  };
}
