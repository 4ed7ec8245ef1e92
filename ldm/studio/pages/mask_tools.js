// What the pointer does in the editor. A tool gets places in the picture (pixels) and changes the editor's mask or
// box. `down`, `move` and `up` are one drag; `cancel` takes it back; `hover` is the pointer without a button.

import { polygonRows, rectangleRows, strokeRows } from "./shapes.js";

export const TOOLS = {
  brush: { label: "Brush", key: "b", make: (editor) => brush(editor, false) },
  eraser: { label: "Eraser", key: "e", make: (editor) => brush(editor, true) },
  rectangle: { label: "Rectangle", key: "r", make: rectangle },
  lasso: { label: "Lasso", key: "l", make: lasso },
  polygon: { label: "Polygon", key: "p", make: polygon },
  box: { label: "Box of the object", key: "x", make: boxHandles },
};

const HINTS = {
  brush: "Drag to paint; Alt or the right button removes; [ and ] change the size.",
  eraser: "Drag to remove.",
  rectangle: "Drag from corner to corner; Alt or the right button removes.",
  lasso: "Draw around the object; Alt or the right button removes.",
  polygon: "Click corner after corner; click the first corner, or double-click, to close. Escape cancels.",
  box: "Drag a handle, or the box; drag outside it for a new one.",
};

/** What a tool does, in a line: for a mouse, or for a finger. */
export function hintOf(name) {
  if (!matchMedia("(pointer: coarse)").matches) return HINTS[name];
  return `${HINTS[name].replace(/; Alt.*|\.$/, "")}. Two fingers zoom and move.`;
}

/** Screen pixels within which a pointer hits something small; a finger hides what it points at. */
const reachOf = (event) => (event.pointerType === "touch" ? 24 : 10);

function brush(editor, erases) {
  let last = null;
  let value = 255;
  let waiting = []; // points that came since the last frame of the screen
  let frame = 0;
  const draw = (a, b) => {
    strokeRows(a, b, editor.brushSize / 2, (y, x0, x1) => editor.layer.setRow(y, x0, x1, value));
    editor.paintLine(a, b, value);
  };
  const paint = () => {
    const start = performance.now();
    for (const point of waiting) {
      draw(last ?? point, point);
      last = point;
    }
    waiting = [];
    frame = 0;
    performance.measure("stroke", { start }); // what the events of one frame cost; read by the tests
  };
  const stop = () => {
    cancelAnimationFrame(frame);
    if (waiting.length) paint();
    frame = 0;
    last = null;
  };
  return {
    down(point, event) {
      value = erases || editor.removes(event) ? 0 : 255;
      performance.clearMeasures("stroke");
      editor.layer.begin();
      this.move([point]);
    },
    move(points) {
      waiting.push(...points);
      frame ||= requestAnimationFrame(paint);
    },
    up() {
      stop();
      editor.commit();
    },
    cancel() {
      stop();
      editor.cancelStroke();
    },
    hover: (point) => editor.showBrush(point),
  };
}

/** Fill rows as one step of the history. */
function fill(editor, removes, rows) {
  editor.layer.begin();
  rows((y, x0, x1) => editor.layer.setRow(y, x0, x1, removes ? 0 : 255));
  editor.commit();
}

function rectangle(editor) {
  let start = null;
  let end = null;
  let removes = false;
  return {
    down(point, event) {
      start = end = point;
      removes = editor.removes(event);
    },
    move(points) {
      end = points.at(-1);
      editor.sketch([start, { x: end.x, y: start.y }, end, { x: start.x, y: end.y }], true);
    },
    up() {
      editor.sketch(null);
      fill(editor, removes, (row) => rectangleRows(start, end, row));
    },
    cancel: () => editor.sketch(null),
    hover() {},
  };
}

function lasso(editor) {
  let points = [];
  let removes = false;
  return {
    down(point, event) {
      points = [point];
      removes = editor.removes(event);
    },
    move(more) {
      points.push(...more);
      editor.sketch(points, true);
    },
    up() {
      editor.sketch(null);
      fill(editor, removes, (row) => polygonRows(points, row));
    },
    cancel: () => editor.sketch(null),
    hover() {},
  };
}

function polygon(editor) {
  let points = [];
  let removes = false;
  const finish = () => {
    const corners = points;
    points = [];
    editor.sketch(null);
    if (corners.length > 2) fill(editor, removes, (row) => polygonRows(corners, row));
  };
  return {
    down(point, event) {
      if (!points.length) removes = editor.removes(event);
      const reach = reachOf(event) / editor.viewport.scale;
      const near = (corner) => Math.hypot(point.x - corner.x, point.y - corner.y) < reach;
      const closes = points.length > 1 && (near(points[0]) || near(points.at(-1)));
      if (closes) finish();
      else points.push(point);
    },
    move() {},
    up() {},
    cancel() {
      points = [];
      editor.sketch(null);
    },
    hover(point) {
      if (points.length) editor.sketch(point ? [...points, point] : points, false);
    },
  };
}

const SIDES = [
  [0, 1],
  [2, 1],
  [2, 3],
  [0, 3], // corners: indices of the box's x and y
  [null, 1],
  [2, null],
  [null, 3],
  [0, null],
];

/** The eight handles of a box, in the order of SIDES. */
export function handlesOf([x0, y0, x1, y1]) {
  const box = [x0, y0, x1, y1];
  return SIDES.map(([i, j]) => ({
    x: i === null ? (x0 + x1) / 2 : box[i],
    y: j === null ? (y0 + y1) / 2 : box[j],
  }));
}

function boxHandles(editor) {
  let grip = null; // a pair of SIDES, "move" or null
  let from = null;
  let before = null;
  const { width, height } = editor.source;
  const set = (box) => {
    const [x0, x1] = [box[0], box[2]].sort((a, b) => a - b);
    const [y0, y1] = [box[1], box[3]].sort((a, b) => a - b);
    const inside = (value, size) => Math.round(Math.min(Math.max(value, 0), size));
    editor.setBox([inside(x0, width), inside(y0, height), inside(x1, width), inside(y1, height)]);
  };
  return {
    down(point, event) {
      before = editor.box ?? [point.x, point.y, point.x, point.y];
      const reach = reachOf(event) / editor.viewport.scale;
      const found = handlesOf(before).findIndex((h) => Math.hypot(h.x - point.x, h.y - point.y) < reach);
      const [x0, y0, x1, y1] = before;
      const inside = point.x > x0 && point.x < x1 && point.y > y0 && point.y < y1;
      if (editor.box && found >= 0) grip = SIDES[found];
      else if (inside) grip = "move";
      else {
        grip = [2, 3];
        before = [point.x, point.y, point.x, point.y];
      }
      from = point;
    },
    move(points) {
      const [dx, dy] = [points.at(-1).x - from.x, points.at(-1).y - from.y];
      const box = [...before];
      if (grip === "move") {
        const x = Math.min(Math.max(dx, -box[0]), width - box[2]);
        const y = Math.min(Math.max(dy, -box[1]), height - box[3]);
        return set([box[0] + x, box[1] + y, box[2] + x, box[3] + y]);
      }
      if (grip[0] !== null) box[grip[0]] += dx;
      if (grip[1] !== null) box[grip[1]] += dy;
      return set(box);
    },
    up() {
      const box = editor.box;
      if (box && box[2] - box[0] > 1 && box[3] - box[1] > 1) editor.boxChanged();
      else editor.setBox(before);
    },
    cancel: () => editor.setBox(before),
    hover() {},
  };
}
