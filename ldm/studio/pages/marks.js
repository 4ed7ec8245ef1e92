// Lines over the picture, as thick on the screen at every zoom: regions, the object's box, what a tool is drawing.

import { svg } from "./element.js";
import { handlesOf } from "./mask_tools.js";

const HANDLE = 10; // screen pixels

/**
 * The SVG shapes of all marks.
 * @param {Viewport} viewport
 * @param {{regions: {box, colour, label}[], box: number[] | null, handles: boolean, outline: {points, closed} | null}} marks
 */
export function markShapes(viewport, { regions, box, handles, outline }) {
  const at = ({ x, y }) => [viewport.x + x * viewport.scale, viewport.y + y * viewport.scale];
  const corners = ([x0, y0, x1, y1]) => [
    { x: x0, y: y0 },
    { x: x1, y: y0 },
    { x: x1, y: y1 },
    { x: x0, y: y1 },
  ];
  const line = (kind, points, name, more = {}) => {
    const where = points.map((point) => at(point).join(",")).join(" ");
    return [svg(kind, { points: where, class: "halo" }), svg(kind, { points: where, class: name, ...more })];
  };
  const shapes = regions.flatMap(({ box: square, colour, label }) => {
    const [x, y] = at({ x: square[0], y: square[1] });
    return [
      ...line("polygon", corners(square), "region", { stroke: `rgb(${colour.join(" ")})` }),
      svg("text", { x: x + 6, y: y + 16 }, label),
    ];
  });
  if (box) shapes.push(...line("polygon", corners(box), "box"));
  if (box && handles) {
    for (const handle of handlesOf(box)) {
      const [x, y] = at(handle);
      shapes.push(
        svg("rect", { x: x - HANDLE / 2, y: y - HANDLE / 2, width: HANDLE, height: HANDLE, class: "handle" }),
      );
    }
  }
  if (outline) shapes.push(...line(outline.closed ? "polygon" : "polyline", outline.points, "sketch"));
  return shapes;
}
