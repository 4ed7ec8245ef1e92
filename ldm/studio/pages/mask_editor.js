// The editor: a picture, its masks as coloured overlays, a toolbar. Masks keep the picture's own size at every zoom.

import { editorKey } from "./editor_keys.js";
import { LARGEST_BRUSH, editorToolbar } from "./editor_toolbar.js";
import { element, svg } from "./element.js";
import { markShapes } from "./marks.js";
import { TOOLS, hintOf } from "./mask_tools.js";
import { PictureLayer } from "./picture_layer.js";
import { Viewport } from "./viewport.js";

export class MaskEditor {
  /**
   * @param {HTMLElement} host  the editor fills it
   * @param {{tools: string[], onmask?: (layer) => void, onbox?: (box) => void, extra?: Node[]}} options  `onmask` and
   *   `onbox` are called when a change is complete; `extra` stands at the toolbar's end
   */
  constructor(host, { tools, onmask = () => {}, onbox = () => {}, extra = [] }) {
    this.onmask = onmask;
    this.onbox = onbox;
    this.layers = [];
    this.active = 0; // which layer is drawn on
    this.box = null; // [x0, y0, x1, y1] or null
    this.regions = []; // [{box, colour, label}] drawn as squares
    this.brushSize = 40; // diameter, pixels of the picture
    this.outline = null; // what a tool is drawing: {points, closed}
    this.cursor = null; // the pointer, or the keyboard's place
    this.keyboard = false; // whether the arrow keys moved the place
    this.penDown = false; // of the keyboard
    this.frame = 0;
    this.events = new AbortController();
    this.tools = tools;
    this.build(host, extra);
    document.addEventListener("keydown", (event) => editorKey(this, event), { signal: this.events.signal });
  }

  build(host, extra) {
    this.pictureCanvas = element("canvas", { class: "picture" });
    this.maskCanvas = element("canvas", { class: "masks" });
    this.marks = svg("svg", { class: "marks", "aria-hidden": "true" });
    this.brushOutline = element("div", { class: "brush", hidden: true });
    this.stage = element(
      "div",
      {
        class: "stage",
        tabindex: "0",
        role: "application",
        "aria-label": "Picture and mask. Arrow keys move the brush, Enter puts it down and lifts it.",
      },
      this.pictureCanvas,
      this.maskCanvas,
      this.marks,
      this.brushOutline,
    );
    this.toolbar = editorToolbar(this, this.tools, extra);
    this.status = element("p", { class: "status" });
    this.root = element("div", { class: "editor" }, this.toolbar.node, this.stage, this.status);
    host.replaceChildren(this.root);
    this.setBrush(this.brushSize);
  }

  /** Show a picture (see PictureLayer) with these masks; the first tool is chosen. */
  open(source, layers, { tool = this.tools[0] } = {}) {
    this.viewport?.close();
    this.source = source;
    this.layers = layers;
    this.active = 0;
    this.box = null;
    this.regions = [];
    this.picture = new PictureLayer(source, () => this.redraw());
    this.viewport = new Viewport(this.stage, source, () => this.redraw());
    this.setBrush(Math.max(4, Math.round(Math.max(source.width, source.height) / 25)));
    this.choose(tool);
    return this.picture.ready();
  }

  /** Stop listening; the editor is not used any more. */
  close() {
    this.events.abort();
    this.viewport?.close();
    cancelAnimationFrame(this.frame);
  }

  get layer() {
    return this.layers[this.active];
  }

  choose(name) {
    if (!this.source) return;
    this.viewport.tool?.cancel();
    this.tool = name;
    this.keyboard = this.penDown = false;
    this.viewport.tool = TOOLS[name].make(this);
    this.toolbar.showTool(name);
    this.stage.dataset.tool = name;
    this.showBrush(null);
    this.redraw();
  }

  /** Whether a pointer event takes away instead of adding. */
  removes(event) {
    return this.toolbar.removes() || Boolean(event?.altKey) || event?.button === 2 || event?.button === 5;
  }

  setBrush(size) {
    this.brushSize = Math.min(Math.max(Math.round(size), 1), LARGEST_BRUSH);
    this.toolbar.showSize(this.brushSize);
    this.showBrush(this.cursor);
  }

  setBox(box) {
    this.box = box;
    this.drawMarks();
  }

  boxChanged() {
    this.onbox(this.box);
  }

  /** A change of the mask is complete. */
  commit() {
    if (!this.layer.commit()) return;
    this.paintChange();
    this.showStatus();
    this.onmask(this.layer);
  }

  cancelStroke() {
    if (!this.layer) return;
    this.layer.cancel();
    this.paintChange();
  }

  step(direction) {
    if (this.layer?.stroke || !this.layer?.[direction]()) return;
    this.paintChange();
    this.showStatus();
    this.onmask(this.layer);
  }

  /** Change the active mask by a function of the layer; undo takes it back as one step. */
  change(act) {
    this.layer.begin();
    act(this.layer);
    this.commit();
  }

  sketch(points, closed = false) {
    this.outline = points && { points, closed };
    this.drawMarks();
  }

  showBrush(point) {
    this.cursor = point;
    const brushes = this.tool === "brush" || this.tool === "eraser";
    this.brushOutline.hidden = !point || !(brushes || this.keyboard);
    if (!point || !this.viewport) return;
    const { scale, x, y } = this.viewport;
    const size = Math.max(brushes ? this.brushSize * scale : 6, 3);
    this.brushOutline.style.width = this.brushOutline.style.height = `${size}px`;
    this.brushOutline.style.transform = `translate(${x + point.x * scale - size / 2}px, ${y + point.y * scale - size / 2}px)`;
  }

  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.render());
  }

  render() {
    this.frame = 0;
    const { clientWidth, clientHeight } = this.stage;
    for (const canvas of [this.pictureCanvas, this.maskCanvas]) {
      const [width, height] = [clientWidth, clientHeight].map((n) => Math.round(n * devicePixelRatio));
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    const { viewport } = this;
    const context = this.pictureCanvas.getContext("2d");
    context.clearRect(0, 0, this.pictureCanvas.width, this.pictureCanvas.height);
    this.picture.draw(context, viewport.visible(), viewport.place, viewport.scale * devicePixelRatio);
    for (const layer of this.layers) layer.takeDirty();
    this.drawMasks(viewport.visible());
    this.drawMarks();
    this.showBrush(this.cursor);
    this.showStatus();
  }

  /** Bring the screen up to date after a change of the mask, only where it changed. */
  paintChange() {
    const dirty = this.layer.takeDirty();
    if (dirty && this.viewport) this.drawMasks(dirty);
  }

  /** Show a piece of a stroke at once; the pixels themselves are painted when the stroke is complete. */
  paintLine(a, b, value) {
    const context = this.maskCanvas.getContext("2d");
    const { place, scale } = this.viewport;
    const [corner, end] = [place(0, 0), place(this.source.width, this.source.height)];
    const [from, to] = [place(a.x, a.y), place(b.x, b.y)];
    context.save();
    context.beginPath();
    context.rect(corner.x, corner.y, end.x - corner.x, end.y - corner.y);
    context.clip();
    context.globalCompositeOperation = value ? "source-over" : "destination-out";
    context.strokeStyle = `rgb(${this.layer.colour.join(" ")})`;
    context.lineCap = "round";
    context.lineWidth = Math.max(this.brushSize * scale * devicePixelRatio, 1);
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y); // a line of no length would not be drawn
    context.stroke();
    context.restore();
  }

  drawMasks(box) {
    const context = this.maskCanvas.getContext("2d");
    const { place, scale } = this.viewport;
    const seen = this.viewport.visible();
    const clipped = [0, 1]
      .map((i) => Math.max(box[i], seen[i]))
      .concat([2, 3].map((i) => Math.min(box[i], seen[i])));
    if (clipped[0] >= clipped[2] || clipped[1] >= clipped[3]) return;
    const from = place(clipped[0], clipped[1]);
    const to = place(clipped[2], clipped[3]);
    context.save();
    context.beginPath();
    context.rect(from.x - 2, from.y - 2, to.x - from.x + 4, to.y - from.y + 4); // room for smoothing
    context.clip();
    context.clearRect(from.x - 2, from.y - 2, to.x - from.x + 4, to.y - from.y + 4);
    context.imageSmoothingEnabled = scale * devicePixelRatio < 2;
    const room = 3 / scale;
    const grown = [clipped[0] - room, clipped[1] - room, clipped[2] + room, clipped[3] + room];
    for (const layer of this.layers) layer.draw(context, grown, place);
    context.restore();
  }

  drawMarks() {
    if (!this.viewport) return;
    const { regions, box, outline, tool } = this;
    this.marks.replaceChildren(
      ...markShapes(this.viewport, { regions, box, outline, handles: tool === "box" }),
    );
  }

  showStatus() {
    const { width, height } = this.source;
    const zoom = Math.round(this.viewport.scale * devicePixelRatio * 1000) / 10;
    this.status.textContent = `${width} × ${height} pixels, shown at ${zoom} %. ${hintOf(this.tool)}`;
  }
}
