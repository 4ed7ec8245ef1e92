// The editor by keyboard: shortcuts, and drawing with the arrow keys.

import { TOOLS } from "./mask_tools.js";

const TYPED_IN = "input:not([type=range], [type=checkbox]), select, textarea, dialog";
const STEP = 8; // screen pixels that an arrow key moves the brush; with Shift five times as many

/** Answer a key press anywhere on the page, unless it belongs to a field. */
export function editorKey(editor, event) {
  if (!editor.viewport || !editor.root.offsetParent || event.target.closest?.(TYPED_IN)) return;
  const known = event.ctrlKey || event.metaKey ? historyKeys(editor, event) : plainKeys(editor, event);
  const act = known[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
}

const historyKeys = (editor, event) => ({
  z: () => editor.step(event.shiftKey ? "redo" : "undo"),
  y: () => editor.step("redo"),
});

function plainKeys(editor, event) {
  const tools = editor.tools.map((name) => [TOOLS[name].key, () => editor.choose(name)]);
  return {
    "[": () => editor.setBrush(Math.min(editor.brushSize / 1.2, editor.brushSize - 1)),
    "]": () => editor.setBrush(Math.max(editor.brushSize * 1.2, editor.brushSize + 1)),
    0: () => editor.viewport.fit(),
    1: () => editor.viewport.zoomTo(1),
    "+": () => editor.viewport.zoom(1.25),
    "-": () => editor.viewport.zoom(0.8),
    escape: () => editor.viewport.tool.cancel(),
    ...Object.fromEntries(tools),
    ...(event.target === editor.stage ? drawingKeys(editor, event) : {}),
  };
}

/** Arrows move the brush, Enter puts it down and lifts it. */
function drawingKeys(editor, event) {
  const { viewport, source } = editor;
  const step = ((event.shiftKey ? 5 : 1) * STEP) / viewport.scale;
  const place = editor.cursor ?? { x: source.width / 2, y: source.height / 2 };
  const go = (dx, dy) => () => {
    const point = { x: place.x + dx * step, y: place.y + dy * step };
    if (editor.penDown) viewport.tool.move([point], event);
    viewport.tool.hover(point);
    editor.keyboard = true;
    editor.showBrush(point);
  };
  const pen = () => {
    if (editor.penDown) viewport.tool.up(event);
    else viewport.tool.down(place, event);
    editor.penDown = !editor.penDown && editor.tool !== "polygon"; // a polygon's corners are single points
  };
  return { arrowleft: go(-1, 0), arrowright: go(1, 0), arrowup: go(0, -1), arrowdown: go(0, 1), enter: pen };
}
