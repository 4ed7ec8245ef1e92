// Shapes as rows of pixels. A pixel belongs to a shape if its centre lies inside. `row(y, x0, x1)` is called with
// whole numbers for every row from top to bottom, x1 not included; rows may lie outside the picture.

const firstPixel = (x) => Math.ceil(x - 0.5);
const pastPixel = (x) => Math.floor(x - 0.5) + 1;

/** A brush stroke from point a to point b: all points within `radius` of the line between them. */
export function strokeRows(a, b, radius, row) {
  const r = Math.max(radius, 0.7072); // a brush of one pixel always covers the pixel under the pointer
  const length = Math.hypot(b.x - a.x, b.y - a.y);
  const across = length ? { x: (-(b.y - a.y) / length) * r, y: ((b.x - a.x) / length) * r } : { x: 0, y: 0 };
  const corners = [
    { x: a.x + across.x, y: a.y + across.y },
    { x: b.x + across.x, y: b.y + across.y },
    { x: b.x - across.x, y: b.y - across.y },
    { x: a.x - across.x, y: a.y - across.y },
  ];
  const end = pastPixel(Math.max(a.y, b.y) + r);
  for (let y = firstPixel(Math.min(a.y, b.y) - r); y < end; y++) {
    const centre = y + 0.5;
    let left = Infinity;
    let right = -Infinity;
    for (const point of [a, b]) {
      const half = Math.sqrt(r * r - (centre - point.y) ** 2); // NaN outside the circle
      if (half >= 0) {
        left = Math.min(left, point.x - half);
        right = Math.max(right, point.x + half);
      }
    }
    for (let i = 0; i < 4; i++) {
      const x = crossing(corners[i], corners[(i + 1) % 4], centre);
      if (x === null) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    if (left <= right) row(y, firstPixel(left), pastPixel(right));
  }
}

/** Where the edge a-b crosses the horizontal line at y; null: nowhere. */
function crossing(a, b, y) {
  if (a.y <= y === b.y <= y) return null;
  return a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x);
}

/** A closed polygon (even-odd rule). */
export function polygonRows(points, row) {
  const heights = points.map((point) => point.y);
  const end = pastPixel(Math.max(...heights));
  for (let y = firstPixel(Math.min(...heights)); y < end; y++) {
    const crossings = [];
    points.forEach((point, i) => {
      const x = crossing(point, points[(i + 1) % points.length], y + 0.5);
      if (x !== null) crossings.push(x);
    });
    crossings.sort((p, q) => p - q);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      row(y, firstPixel(crossings[i]), pastPixel(crossings[i + 1]));
    }
  }
}

/** The rectangle between two corners, in any order: every pixel that it touches by its centre. */
export function rectangleRows(a, b, row) {
  const [left, right] = a.x < b.x ? [a.x, b.x] : [b.x, a.x];
  const [top, bottom] = a.y < b.y ? [a.y, b.y] : [b.y, a.y];
  for (let y = firstPixel(top); y < pastPixel(bottom); y++) row(y, firstPixel(left), pastPixel(right));
}
