// The editor's toolbar: tools, brush size, undo, zoom, and what a page adds.

import { button, element, iconButton } from "./element.js";
import { TOOLS } from "./mask_tools.js";

export const LARGEST_BRUSH = 2000; // pixels of the picture

/**
 * The toolbar of an editor. `node` is its element; `showTool(name)`, `showSize(pixels)` bring it up to date;
 * `removes()` tells whether "Remove" is ticked.
 */
export function editorToolbar(editor, tools, extra) {
  const toolButtons = tools.map((name) => {
    const title = `${TOOLS[name].label} (${TOOLS[name].key.toUpperCase()})`;
    return iconButton(name, title, () => editor.choose(name), { "aria-pressed": "false" });
  });
  const size = element("input", {
    type: "range",
    min: 0,
    max: 100,
    step: "any",
    "aria-label": "Brush size",
    title: "Brush size ([ and ])",
    oninput: () => editor.setBrush(LARGEST_BRUSH ** (size.value / 100)),
  });
  const sizeText = element("output", { class: "size" });
  const remove = element("input", { type: "checkbox" });
  const group = (...controls) => element("div", { class: "group" }, controls);
  const node = element(
    "div",
    {
      class: "toolbar",
      role: "toolbar",
      "aria-label": "Mask tools",
      // a click gives the keyboard back to the picture; a key press on a button does not
      onclick: (event) => event.detail && event.target.closest("button") && editor.stage.focus(),
    },
    group(toolButtons),
    element("label", { class: "group" }, size, sizeText),
    element(
      "label",
      { class: "group", title: "Strokes and shapes remove from the mask (Alt)" },
      remove,
      "Remove",
    ),
    group(
      iconButton("undo", "Undo (Ctrl+Z)", () => editor.step("undo")),
      iconButton("redo", "Redo (Ctrl+Shift+Z)", () => editor.step("redo")),
    ),
    group(
      iconButton("fit", "Show the whole picture (0)", () => editor.viewport?.fit()),
      button("100 %", () => editor.viewport?.zoomTo(1), {
        title: "One pixel of the picture is one of the screen (1)",
      }),
    ),
    extra,
  );
  return {
    node,
    removes: () => remove.checked,
    showTool: (name) =>
      toolButtons.forEach((one, i) => one.setAttribute("aria-pressed", String(tools[i] === name))),
    showSize: (pixels) => {
      size.value = (Math.log(pixels) / Math.log(LARGEST_BRUSH)) * 100;
      sizeText.textContent = `${pixels} px`;
    },
  };
}
