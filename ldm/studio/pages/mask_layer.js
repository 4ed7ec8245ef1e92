// A mask at its picture's own size, kept in tiles: a stroke touches only the tiles under it, a tile that is wholly
// inside or outside costs one number, so that 100 megapixels fit. 255 is the object, 0 is not.

export const TILE = 512; // pixels
const HISTORY_BYTES = 256 * 2 ** 20;

export class MaskLayer {
  constructor(width, height, colour = [226, 40, 190]) {
    this.width = width;
    this.height = height;
    this.colour = colour; // red, green, blue of its overlay
    this.columns = Math.ceil(width / TILE);
    this.rows = Math.ceil(height / TILE);
    this.tiles = new Array(this.columns * this.rows).fill(0); // 0, 255 or Uint8Array of TILE * TILE
    this.canvases = new Map(); // tile => its overlay, made when it is drawn
    this.undone = [];
    this.done = [];
    this.stroke = null; // tile => what it was before this stroke
    this.dirty = null; // [x0, y0, x1, y1] since `takeDirty`
    this.stale = new Set(); // tiles whose overlay is older than they are
  }

  /** Start a change that undo takes back as a whole. */
  begin() {
    this.stroke = new Map();
  }

  /** Set the pixels x0 <= x < x1 of row y to 0 or 255; what lies outside the picture is ignored. */
  setRow(y, x0, x1, value) {
    if (y < 0 || y >= this.height) return;
    const start = Math.max(0, x0);
    const end = Math.min(this.width, x1);
    if (start >= end) return;
    const line = Math.floor(y / TILE) * this.columns;
    const inside = (y % TILE) * TILE;
    for (let column = Math.floor(start / TILE); column * TILE < end; column++) {
      const index = line + column;
      if (this.tiles[index] === value) continue;
      const from = Math.max(0, start - column * TILE);
      const to = Math.min(TILE, end - column * TILE);
      this.writable(index).fill(value, inside + from, inside + to);
      this.stale.add(index);
    }
    this.touch(start, y, end, y + 1);
  }

  writable(index) {
    const tile = this.tiles[index];
    if (this.stroke && !this.stroke.has(index)) {
      this.stroke.set(index, typeof tile === "number" ? tile : tile.slice());
    }
    if (typeof tile !== "number") return tile;
    const pixels = new Uint8Array(TILE * TILE); // zeros
    return (this.tiles[index] = tile ? pixels.fill(tile) : pixels);
  }

  touch(x0, y0, x1, y1) {
    const dirty = this.dirty;
    if (!dirty) this.dirty = [x0, y0, x1, y1];
    else {
      dirty[0] = Math.min(dirty[0], x0);
      dirty[1] = Math.min(dirty[1], y0);
      dirty[2] = Math.max(dirty[2], x1);
      dirty[3] = Math.max(dirty[3], y1);
    }
  }

  clear() {
    for (let y = 0; y < this.height; y++) this.setRow(y, 0, this.width, 0);
  }

  /** End the change: uniform tiles become one number, undo gets an entry. Returns whether anything was touched. */
  commit() {
    const changed = this.stroke;
    this.stroke = null;
    if (!changed || !changed.size) return false;
    for (const index of changed.keys()) this.tiles[index] = this.settled(index);
    this.done.push(changed);
    this.undone = [];
    let bytes = 0;
    for (let i = this.done.length - 1; i >= 0; i--) {
      for (const tile of this.done[i].values()) bytes += typeof tile === "number" ? 8 : tile.length;
      if (bytes > HISTORY_BYTES && i < this.done.length - 1) {
        this.done.splice(0, i + 1);
        break;
      }
    }
    return true;
  }

  /** A tile as one number if all of its pixels inside the picture agree. */
  settled(index) {
    const tile = this.tiles[index];
    if (typeof tile === "number") return tile;
    const { width, height } = this.tileBox(index);
    const value = tile[0];
    for (let y = 0; y < height; y++) {
      for (let i = y * TILE; i < y * TILE + width; i++) if (tile[i] !== value) return tile;
    }
    this.canvases.delete(index);
    return value;
  }

  /** Take the change back that is not committed yet. */
  cancel() {
    for (const [index, tile] of this.stroke ?? []) this.restore(index, tile);
    this.stroke = null;
  }

  /** What is there now is the beginning: no step to undo. */
  forget() {
    this.done = [];
    this.undone = [];
  }

  undo() {
    return this.swap(this.done, this.undone);
  }

  redo() {
    return this.swap(this.undone, this.done);
  }

  swap(from, to) {
    const change = from.pop();
    if (!change) return false;
    const reverse = new Map();
    for (const [index, tile] of change) {
      reverse.set(index, this.tiles[index]);
      this.restore(index, tile);
    }
    to.push(reverse);
    return true;
  }

  restore(index, tile) {
    this.tiles[index] = tile;
    this.canvases.delete(index);
    const { x, y, width, height } = this.tileBox(index);
    this.touch(x, y, x + width, y + height);
  }

  /** Where a tile lies in the picture; tiles at the right and lower edge are smaller. */
  tileBox(index) {
    const x = (index % this.columns) * TILE;
    const y = Math.floor(index / this.columns) * TILE;
    return { x, y, width: Math.min(TILE, this.width - x), height: Math.min(TILE, this.height - y) };
  }

  /** What changed since the last call, [x0, y0, x1, y1] or null; the overlays of its tiles are brought up to date. */
  takeDirty() {
    const dirty = this.dirty;
    this.dirty = null;
    for (const index of this.stale) {
      if (this.canvases.has(index)) this.paint(index, this.canvases.get(index), dirty);
    }
    this.stale.clear();
    return dirty;
  }

  /** The box around the object, [x0, y0, x1, y1], and its number of pixels; null: the mask is empty. */
  bounds() {
    let [x0, y0, x1, y1, pixels] = [Infinity, Infinity, -Infinity, -Infinity, 0];
    this.tiles.forEach((tile, index) => {
      if (tile === 0) return;
      const { x, y, width, height } = this.tileBox(index);
      for (let row = 0; row < height; row++) {
        const line = tile === 255 ? null : tile.subarray(row * TILE, row * TILE + width);
        const first = line ? line.indexOf(255) : 0;
        if (first < 0) continue;
        const last = line ? line.lastIndexOf(255) : width - 1;
        x0 = Math.min(x0, x + first);
        x1 = Math.max(x1, x + last + 1);
        y0 = Math.min(y0, y + row);
        y1 = Math.max(y1, y + row + 1);
        if (!line) pixels += width;
        else for (let i = first; i <= last; i++) pixels += line[i] === 255 ? 1 : 0;
      }
    });
    return pixels ? { box: [x0, y0, x1, y1], pixels } : null;
  }

  /** One row of pixels, 0 or 255, written to `target` (length: the width). */
  readRow(y, target) {
    const inside = (y % TILE) * TILE;
    for (let column = 0; column < this.columns; column++) {
      const tile = this.tiles[Math.floor(y / TILE) * this.columns + column];
      const width = Math.min(TILE, this.width - column * TILE);
      if (typeof tile === "number") target.fill(tile, column * TILE, column * TILE + width);
      else target.set(tile.subarray(inside, inside + width), column * TILE);
    }
  }

  /** Take over a picture of the same size as one change: bright and opaque pixels are the object. */
  setImage(bitmap) {
    if (bitmap.width !== this.width || bitmap.height !== this.height) {
      throw new Error(
        `The mask is ${bitmap.width} × ${bitmap.height} pixels, the picture ${this.width} × ${this.height}: ` +
          "choose a mask of the picture's size",
      );
    }
    const context = new OffscreenCanvas(TILE, TILE).getContext("2d", { willReadFrequently: true });
    this.begin();
    for (let index = 0; index < this.tiles.length; index++) {
      const { x, y, width, height } = this.tileBox(index);
      context.fillStyle = "black";
      context.fillRect(0, 0, TILE, TILE);
      context.drawImage(bitmap, x, y, width, height, 0, 0, width, height);
      const pixels = context.getImageData(0, 0, TILE, TILE).data;
      const tile = new Uint8Array(TILE * TILE);
      for (let i = 0; i < tile.length; i++) tile[i] = pixels[4 * i] >= 128 ? 255 : 0;
      this.stroke.set(index, this.tiles[index]);
      this.restore(index, tile);
    }
    this.commit();
  }

  /** Draw the overlay's part inside `visible` ([x0, y0, x1, y1] of the picture); `place(x, y)` gives canvas pixels. */
  draw(context, visible, place) {
    const [left, top] = [Math.floor(visible[0] / TILE), Math.floor(visible[1] / TILE)].map((n) =>
      Math.max(0, n),
    );
    for (let row = top; row < this.rows && row * TILE < visible[3]; row++) {
      for (let column = left; column < this.columns && column * TILE < visible[2]; column++) {
        this.drawTile(context, row * this.columns + column, place);
      }
    }
  }

  drawTile(context, index, place) {
    const tile = this.tiles[index];
    if (tile === 0) return;
    const { x, y, width, height } = this.tileBox(index);
    const from = place(x, y);
    const to = place(x + width, y + height);
    if (tile === 255) {
      context.fillStyle = `rgb(${this.colour.join(" ")})`;
      context.fillRect(from.x, from.y, to.x - from.x, to.y - from.y);
      return;
    }
    if (!this.canvases.has(index)) {
      const canvas = new OffscreenCanvas(TILE, TILE);
      this.canvases.set(index, canvas);
      this.paint(index, canvas, [x, y, x + width, y + height]);
    }
    context.drawImage(
      this.canvases.get(index),
      0,
      0,
      width,
      height,
      from.x,
      from.y,
      to.x - from.x,
      to.y - from.y,
    );
  }

  /** Bring the part of a tile's overlay inside `box` up to date. */
  paint(index, canvas, box) {
    const { x, y, width, height } = this.tileBox(index);
    const left = Math.max(0, box[0] - x);
    const top = Math.max(0, box[1] - y);
    const across = Math.min(width, box[2] - x) - left;
    const down = Math.min(height, box[3] - y) - top;
    const tile = this.tiles[index];
    if (across <= 0 || down <= 0 || typeof tile === "number") return;
    const image = new ImageData(across, down);
    const words = new Uint32Array(image.data.buffer);
    const [red, green, blue] = this.colour;
    const opaque = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian RGBA
    for (let row = 0; row < down; row++) {
      const source = (top + row) * TILE + left;
      for (let i = 0; i < across; i++) if (tile[source + i]) words[row * across + i] = opaque;
    }
    canvas.getContext("2d").putImageData(image, left, top);
  }
}
