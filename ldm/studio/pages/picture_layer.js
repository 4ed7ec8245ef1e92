// A picture of any size on a canvas: a proxy at once, and full-resolution tiles where the zoom needs them.

import { telling } from "./api.js";

const TILE = 1024; // pixels of the picture
const KEPT = 48; // tiles in memory
const PROXY = 2048;

export class PictureLayer {
  /**
   * @param {{width: number, height: number, proxy: (max: number) => string, tile?: (x, y, w, h) => string}} source
   *   the picture's size and its URLs; without `tile` the proxy itself is fetched larger
   * @param {() => void} changed  called when more of the picture has arrived
   */
  constructor(source, changed) {
    this.source = source;
    this.changed = changed;
    this.tiles = new Map(); // "x,y" => Image, oldest first
    this.largest = Math.max(source.width, source.height);
    this.proxySize = Math.min(PROXY, this.largest);
    this.proxy = this.load(source.proxy(PROXY));
  }

  load(url) {
    const image = new Image();
    image.decoding = "async";
    image.addEventListener("load", this.changed);
    image.src = url;
    telling(image.decode());
    return image;
  }

  /** Resolves when the proxy is there; throws if it cannot be shown. */
  async ready() {
    try {
      await this.proxy.decode();
    } catch {
      throw new Error("The picture cannot be shown");
    }
  }

  /** Draw what is visible ([x0, y0, x1, y1]); `place` gives canvas pixels, `zoom` is device pixels for one pixel. */
  draw(context, visible, place, zoom) {
    context.imageSmoothingEnabled = zoom < 3;
    context.imageSmoothingQuality = "medium";
    const { width, height } = this.source;
    this.drawImage(context, this.proxy, 0, 0, width, height, place);
    if (zoom * this.largest <= this.proxySize * 1.25 || this.proxySize === this.largest) return;
    if (!this.source.tile) this.enlarge();
    else for (const [x, y] of this.tilesOf(visible)) this.drawTile(context, x, y, place);
  }

  *tilesOf([x0, y0, x1, y1]) {
    const { width, height } = this.source;
    for (let y = Math.floor(Math.max(0, y0) / TILE) * TILE; y < Math.min(height, y1); y += TILE) {
      for (let x = Math.floor(Math.max(0, x0) / TILE) * TILE; x < Math.min(width, x1); x += TILE)
        yield [x, y];
    }
  }

  drawTile(context, x, y, place) {
    const w = Math.min(TILE, this.source.width - x);
    const h = Math.min(TILE, this.source.height - y);
    const key = `${x},${y}`;
    const tile = this.tiles.get(key) ?? this.load(this.source.tile(x, y, w, h));
    this.tiles.delete(key);
    this.tiles.set(key, tile); // the newest is last
    if (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
    this.drawImage(context, tile, x, y, w, h, place);
  }

  drawImage(context, image, x, y, w, h, place) {
    if (!image.complete || !image.naturalWidth) return;
    const from = place(x, y);
    const to = place(x + w, y + h);
    context.drawImage(image, from.x, from.y, to.x - from.x, to.y - from.y);
  }

  /** Replace the proxy by the largest that the server gives; the old one stays until then. */
  enlarge() {
    this.proxySize = this.largest;
    const image = this.load(this.source.proxy(this.largest));
    image.addEventListener("load", () => {
      this.proxy = image;
      this.changed();
    });
  }
}
