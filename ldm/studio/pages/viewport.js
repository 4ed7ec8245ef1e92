// The window onto a picture: zoom, pan, and the pointer's place in the picture. Wheel zooms to the pointer; space or
// the middle button pans; two fingers do both. Everything else goes to the `tool`.

const LARGEST = 32; // screen pixels for one of the picture

export class Viewport {
  /**
   * @param {HTMLElement} host  what shows the picture and gets the pointer
   * @param {{width: number, height: number}} size  of the picture, pixels
   * @param {() => void} changed  called when the picture must be drawn again
   */
  constructor(host, size, changed) {
    this.host = host;
    this.size = size;
    this.changed = changed;
    this.tool = null; // {down(point, event), move(points, event), up(), cancel(), hover(point | null)}
    this.pointers = new Map(); // id => last place on the screen
    this.mode = null; // "tool", "pan", "pinch" or null
    this.spaceDown = false;
    this.scale = 1; // screen (CSS) pixels for one of the picture
    this.x = 0; // where the picture's corner lies in the host
    this.y = 0;
    this.fitted = true;
    this.events = new AbortController();
    this.listen();
    this.observer = new ResizeObserver(() => (this.fitted ? this.fit() : this.changed()));
    this.observer.observe(host);
    this.fit();
  }

  listen() {
    const on = (name, act, options = {}) =>
      this.host.addEventListener(name, act.bind(this), { signal: this.events.signal, ...options });
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.up);
    on("pointerleave", () => this.tool?.hover(null));
    on("wheel", this.wheel, { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    on("keydown", (event) => this.space(event, true));
    on("keyup", (event) => this.space(event, false));
    on("blur", () => (this.spaceDown = false));
  }

  /** Stop listening. */
  close() {
    this.events.abort();
    this.observer.disconnect();
  }

  /** A place of the screen (an event) => the picture's pixels. */
  toImage(event) {
    const frame = this.host.getBoundingClientRect();
    return {
      x: (event.clientX - frame.left - this.x) / this.scale,
      y: (event.clientY - frame.top - this.y) / this.scale,
    };
  }

  /** Show the whole picture, or a box [x0, y0, x1, y1] of it with some space around. */
  fit(box = null) {
    const [x0, y0, x1, y1] = box ?? [0, 0, this.size.width, this.size.height];
    const { clientWidth, clientHeight } = this.host;
    const margin = box ? 0.7 : 0.96;
    const scale = Math.min(clientWidth / (x1 - x0), clientHeight / (y1 - y0)) * margin;
    this.scale = Math.min(Math.max(scale, 1e-4), box ? LARGEST : 8);
    this.x = clientWidth / 2 - ((x0 + x1) / 2) * this.scale;
    this.y = clientHeight / 2 - ((y0 + y1) / 2) * this.scale;
    this.fitted = !box;
    this.changed();
  }

  /** Zoom about a point of the host (default: its middle), kept in place. */
  zoom(factor, at = null) {
    const { clientWidth, clientHeight } = this.host;
    const point = at ?? { x: clientWidth / 2, y: clientHeight / 2 };
    const whole = Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
    const scale = Math.min(Math.max(this.scale * factor, Math.min(whole / 4, 1)), LARGEST);
    this.x = point.x - ((point.x - this.x) / this.scale) * scale;
    this.y = point.y - ((point.y - this.y) / this.scale) * scale;
    this.scale = scale;
    this.fitted = false;
    this.changed();
  }

  /** Show `scale` screen pixels of the display for one pixel of the picture; 1 is 100 %. */
  zoomTo(scale) {
    this.zoom(scale / devicePixelRatio / this.scale);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.changed();
  }

  /** The part of the picture on the screen, [x0, y0, x1, y1], not clipped to the picture. */
  visible() {
    const { clientWidth, clientHeight } = this.host;
    const left = -this.x / this.scale;
    const top = -this.y / this.scale;
    return [left, top, left + clientWidth / this.scale, top + clientHeight / this.scale];
  }

  /** Picture => whole device pixels of a canvas that covers the host; neighbours share edges without a seam. */
  place = (x, y) => ({
    x: Math.round((this.x + x * this.scale) * devicePixelRatio),
    y: Math.round((this.y + y * this.scale) * devicePixelRatio),
  });

  space(event, down) {
    if (event.code !== "Space") return;
    event.preventDefault();
    this.spaceDown = down;
    this.host.classList.toggle("panning", down);
  }

  onHost(event) {
    const frame = this.host.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  down(event) {
    this.host.focus({ preventScroll: true });
    this.host.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.onHost(event));
    if (this.pointers.size === 2) {
      if (this.mode === "tool") this.tool?.cancel();
      this.mode = "pinch";
    } else if (this.pointers.size === 1) {
      this.mode = this.spaceDown || event.button === 1 ? "pan" : "tool";
      if (this.mode === "tool") this.tool?.down(this.toImage(event), event);
    }
    event.preventDefault();
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    const now = this.onHost(event);
    if (before) this.pointers.set(event.pointerId, now);
    if (this.mode === "pan" && before) this.pan(now.x - before.x, now.y - before.y);
    else if (this.mode === "pinch" && before) this.pinch(event.pointerId, before, now);
    else if (this.mode === "tool" && before) {
      const all = event.getCoalescedEvents?.() ?? [];
      this.tool?.move(
        (all.length ? all : [event]).map((one) => this.toImage(one)),
        event,
      );
    }
    this.tool?.hover(this.toImage(event));
  }

  pinch(id, before, now) {
    const other = [...this.pointers].find(([one]) => one !== id)[1];
    const spread = (point) => Math.max(Math.hypot(point.x - other.x, point.y - other.y), 1);
    this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.zoom(spread(now) / spread(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "tool") event.type === "pointerup" ? this.tool?.up(event) : this.tool?.cancel();
    if (!this.pointers.size) this.mode = null;
    else if (this.mode === "tool") this.mode = "pinch";
  }

  wheel(event) {
    event.preventDefault();
    const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    this.zoom(Math.exp(-Math.max(-200, Math.min(200, step)) / 400), this.onHost(event));
    this.tool?.hover(this.toImage(event));
  }
}
