// A photo at a glance: its object bright, the rest dimmed, its box.

import { getBlob, withQuery } from "./api.js";
import { element } from "./element.js";

const SIDE = 360; // pixels of the drawing's longer side

/** A button that shows a photo {id, name, width, height, box, image, mask}, its name, its warnings. */
export function photoCard(photo, { reference, onclick }) {
  const scale = SIDE / Math.max(photo.width, photo.height);
  const size = { width: Math.round(photo.width * scale), height: Math.round(photo.height * scale) };
  const canvas = element("canvas", size);
  draw(canvas, photo, scale).catch(() => canvas.classList.add("missing"));
  const notes = [reference ? "Reference" : null, photo.warnings.length ? "See warning" : null].filter(
    Boolean,
  );
  return element(
    "button",
    { type: "button", class: "photo", onclick },
    canvas,
    element("span", { class: "caption" }, element("b", {}, photo.id), element("span", { class: "name" }, photo.name)),
    notes.length
      ? element("span", { class: photo.warnings.length ? "badge warn" : "badge" }, notes.join(" · "))
      : null,
  );
}

async function draw(canvas, photo, scale) {
  const { width, height } = canvas;
  const image = new Image();
  image.src = withQuery(photo.image, { max: 512 });
  const [mask] = await Promise.all([
    getBlob(photo.mask).then((blob) => createImageBitmap(blob, { resizeWidth: width, resizeHeight: height })),
    image.decode(),
  ]);
  const context = canvas.getContext("2d");
  const cut = new OffscreenCanvas(width, height);
  const inside = cut.getContext("2d", { willReadFrequently: true });
  inside.drawImage(mask, 0, 0, width, height);
  const levels = inside.getImageData(0, 0, width, height);
  for (let i = 0; i < levels.data.length; i += 4) levels.data[i + 3] = levels.data[i]; // white => opaque
  inside.putImageData(levels, 0, 0);
  inside.globalCompositeOperation = "source-in";
  inside.drawImage(image, 0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  context.fillStyle = "rgb(30 33 38 / 65%)";
  context.fillRect(0, 0, width, height);
  context.drawImage(cut, 0, 0);
  if (!photo.box) return;
  const [x0, y0, x1, y1] = photo.box.map((value) => value * scale);
  context.strokeStyle = "white";
  context.lineWidth = 2;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
}
