// Masks as files: 8-bit grey PNG, white = object, at the mask's own size, written row by row without a canvas
// (browsers limit a canvas to 16 megapixels on some tablets).

import { TILE } from "./mask_layer.js";

const SIGNATURE = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
const CRC = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** The mask as a PNG blob. */
export async function encodeMask(layer) {
  const packing = new CompressionStream("deflate");
  const packed = new Response(packing.readable).arrayBuffer();
  const writer = packing.writable.getWriter();
  const line = new Uint8Array(layer.width);
  for (let top = 0; top < layer.height; top += TILE) {
    const rows = Math.min(TILE, layer.height - top);
    const raw = new Uint8Array(rows * (layer.width + 1)); // each row: filter byte 0, then its pixels
    for (let row = 0; row < rows; row++) {
      layer.readRow(top + row, line);
      raw.set(line, row * (layer.width + 1) + 1);
    }
    await writer.write(raw);
  }
  await writer.close();
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, layer.width);
  view.setUint32(4, layer.height);
  header.set([8, 0, 0, 0, 0], 8); // 8 bits, grey, deflate, no filter, not interlaced
  const parts = [
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", new Uint8Array(await packed)),
    chunk("IEND"),
  ];
  return new Blob(parts, { type: "image/png" });
}

function chunk(name, data = new Uint8Array(0)) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < 8 + data.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, ~crc >>> 0);
  return bytes;
}

/** Read a mask picture into the layer, as one step of its history. */
export async function decodeMask(layer, blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${blob.name ?? "The mask"} is not a picture that the browser can read: use a PNG file`);
  }
  try {
    layer.setImage(bitmap);
  } finally {
    bitmap.close();
  }
}
