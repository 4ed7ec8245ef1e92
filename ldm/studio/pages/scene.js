// A background with the objects that go into it: which ones, in which order, and the mask of each.

import { getBlob, path, put, withQuery } from "./api.js";
import { colourOf, emptyPlacement, keepDraft, readDraft } from "./draft.js";
import { MaskLayer } from "./mask_layer.js";
import { decodeMask, encodeMask } from "./mask_png.js";
import { firstChoice } from "./placements.js";

export class Scene {
  /** The draft of this background {id, width, height, masks}; objects that are gone are replaced by another one. */
  constructor(background, objects) {
    this.background = background;
    this.objects = objects;
    this.draft = readDraft(background.id);
    this.layers = this.placements.map((_, i) => this.newLayer(i)); // MaskLayer of each placement
    const known = new Set(objects.flatMap((object) => [object.name, ...object.learnt]));
    for (const placement of this.placements) {
      if (!known.has(placement.object)) placement.object = firstChoice(objects);
    }
  }

  get placements() {
    return this.draft.placements;
  }

  url(...parts) {
    return path("backgrounds", this.background.id, ...parts);
  }

  /** Where the background's pixels come from, for a PictureLayer. */
  source() {
    return {
      width: this.background.width,
      height: this.background.height,
      proxy: (max) => withQuery(this.url("image"), { max }),
      tile: (x, y, w, h) => withQuery(this.url("tile"), { x, y, w, h, max: Math.max(w, h) }),
    };
  }

  newLayer(i) {
    return new MaskLayer(this.background.width, this.background.height, colourOf(i));
  }

  add() {
    const object = this.placements.at(-1)?.object || firstChoice(this.objects);
    this.placements.push({ ...emptyPlacement(), object });
    this.layers.push(this.newLayer(this.layers.length));
  }

  removeAt(i) {
    this.placements.splice(i, 1);
    this.layers.splice(i, 1);
    this.recolour();
  }

  /** Move placement i by one place, earlier (-1) or later (1). */
  move(i, by) {
    for (const list of [this.placements, this.layers]) list.splice(i + by, 0, ...list.splice(i, 1));
    this.recolour();
  }

  recolour() {
    this.layers.forEach((layer, i) => {
      layer.colour = colourOf(i);
      layer.canvases.clear();
    });
  }

  /** Fetch the masks that are known: this tab's, another tab's (`from`) or a result's (`url`). */
  async load() {
    const { masks } = this.background;
    const loads = this.placements.map(async (placement, i) => {
      const name = masks.includes(placement.mask) ? placement.mask : placement.from;
      const url = placement.url ?? (masks.includes(name) ? this.url("masks", name) : null);
      if (!url) return;
      await decodeMask(this.layers[i], await getBlob(withQuery(url, { at: Date.now() })));
      this.layers[i].forget();
      this.layers[i].unsaved = name !== placement.mask;
    });
    await Promise.all(loads);
  }

  /** Send the masks that changed, and keep the draft with these further values. */
  async store(values) {
    const placements = [...this.placements];
    for (const [i, layer] of [...this.layers].entries()) {
      if (!layer.unsaved) continue;
      layer.unsaved = false;
      try {
        await put(this.url("masks", placements[i].mask), await encodeMask(layer));
      } catch (error) {
        layer.unsaved = true;
        throw error;
      }
      Object.assign(placements[i], { stored: true, from: null, url: undefined });
    }
    Object.assign(this.draft, values);
    keepDraft(this.background.id, this.draft);
  }

  /** What the server is asked to plan or to do. */
  request() {
    const placements = this.placements.map(({ object, reference, mask }) => ({
      object,
      mask,
      ...(reference ? { reference } : {}),
    }));
    const { settings, seeds, seed } = this.draft;
    return { background: this.background.id, placements, settings, seeds, seed };
  }

  /** What still has to be done before an insertion; "": nothing. */
  missing() {
    if (!this.objects.length) return "On the page Objects, learn an object or give one photos first.";
    const which = (i, one) => (this.placements.length > 1 ? `object ${i + 1}` : one);
    const noObject = this.placements.findIndex((one) => !one.object);
    if (noObject >= 0) return `Choose ${which(noObject, "an object")}.`;
    const noMask = this.layers.findIndex((layer) => !layer.bounds());
    return noMask >= 0 ? `Paint where ${which(noMask, "the object")} goes.` : "";
  }
}
