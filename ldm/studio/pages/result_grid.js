// Results side by side, and one of them large beside its background.

import { button, element } from "./element.js";
import { path, withQuery } from "./api.js";
import { Compare } from "./compare.js";

/** A result's picture for the comparison. */
export const resultSource = (result) => ({
  label: "Result",
  width: result.width,
  height: result.height,
  proxy: (max) => withQuery(path("results", result.id, "image"), { max }),
});

/** The background that a result was made on. */
export const beforeSource = (result) => ({
  label: "Before",
  width: result.width,
  height: result.height,
  proxy: (max) => withQuery(path("results", result.id, "before"), { max }),
});

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
