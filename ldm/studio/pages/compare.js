// Two pictures in one window: a slider between them, a key that shows the other one, 100 %.

import { button, element } from "./element.js";
import { PictureLayer } from "./picture_layer.js";
import { Viewport } from "./viewport.js";

export class Compare {
  /** Show sources a and b ({label, width, height, proxy, tile?}); b is drawn over the place of a. */
  constructor(host, a, b) {
    this.a = a;
    this.b = b;
    this.split = 0.5; // share of the window left of the slider, which shows b
    this.held = false;
    this.frame = 0;
    this.events = new AbortController();
    this.canvas = element("canvas");
    this.divider = element("div", { class: "divider", "aria-hidden": "true" });
    this.stage = element(
      "div",
      { class: "stage compare", tabindex: "0", "aria-label": `${b.label} and ${a.label}` },
      this.canvas,
      this.divider,
    );
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 1000,
      value: 500,
      "aria-label": "How much of the first picture is seen",
      oninput: () => this.setSplit(this.slider.value / 1000),
    });
    this.hold = button(`Hold to see ${b.label} (C)`, () => {}, {
      onpointerdown: () => this.setHeld(true),
      onpointerup: () => this.setHeld(false),
      onpointerleave: () => this.setHeld(false),
    });
    this.status = element("p", { class: "status" });
    const toolbar = element(
      "div",
      { class: "toolbar" },
      element(
        "label",
        { class: "group wide" },
        element("span", {}, b.label),
        this.slider,
        element("span", {}, a.label),
      ),
      this.hold,
      button("Fit", () => this.viewport.fit(), { title: "Show the whole picture (0)" }),
      button("100 %", () => this.viewport.zoomTo(1), {
        title: "One pixel of the picture is one of the screen (1)",
      }),
      a.region
        ? button("Region", () => this.viewport.fit(a.region), { title: "Show what was generated (2)" })
        : null,
    );
    this.root = element("div", { class: "editor" }, toolbar, this.stage, this.status);
    host.replaceChildren(this.root);
    this.viewport = new Viewport(this.stage, a, () => this.redraw());
    this.viewport.tool = this.tool();
    this.layers = [a, b].map((source) => new PictureLayer(source, () => this.redraw()));
    const signal = this.events.signal;
    document.addEventListener("keydown", (event) => this.key(event, true), { signal });
    document.addEventListener("keyup", (event) => this.key(event, false), { signal });
  }

  close() {
    this.events.abort();
    this.viewport.close();
    cancelAnimationFrame(this.frame);
  }

  /** A drag near the slider's line moves it, any other drag moves the picture. */
  tool() {
    let moves = null;
    const line = () => this.split * this.stage.clientWidth;
    const onScreen = (point) => ({
      x: this.viewport.x + point.x * this.viewport.scale,
      y: this.viewport.y + point.y * this.viewport.scale,
    });
    let last = null;
    return {
      down: (point) => {
        last = onScreen(point);
        moves = Math.abs(last.x - line()) < 24 ? "line" : "picture";
      },
      move: (points) => {
        const now = onScreen(points.at(-1));
        if (moves === "line") this.setSplit(now.x / this.stage.clientWidth);
        else this.viewport.pan(now.x - last.x, now.y - last.y);
        last = now;
      },
      up() {},
      cancel() {},
      hover() {},
    };
  }

  setSplit(share) {
    this.split = Math.min(Math.max(share, 0), 1);
    this.slider.value = this.split * 1000;
    this.redraw();
  }

  setHeld(held) {
    this.held = held;
    this.redraw();
  }

  key(event, down) {
    if (event.target.closest?.("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey)
      return;
    const key = event.key.toLowerCase();
    if (key === "c" || (key === " " && event.target === this.hold)) this.setHeld(down);
    else if (down && key === "0") this.viewport.fit();
    else if (down && key === "1") this.viewport.zoomTo(1);
    else if (down && key === "2" && this.a.region) this.viewport.fit(this.a.region);
  }

  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.render());
  }

  render() {
    this.frame = 0;
    const { canvas, stage, viewport } = this;
    canvas.width = Math.round(stage.clientWidth * devicePixelRatio);
    canvas.height = Math.round(stage.clientHeight * devicePixelRatio);
    const context = canvas.getContext("2d");
    const [above, below] = this.layers;
    const zoom = viewport.scale * devicePixelRatio;
    const share = this.held ? 1 : this.split;
    const edge = Math.round(share * canvas.width);
    const draw = (layer, x, width, place) => {
      context.save();
      context.beginPath();
      context.rect(x, 0, width, canvas.height);
      context.clip();
      layer.draw(context, viewport.visible(), place, zoom);
      context.restore();
    };
    draw(above, edge, canvas.width - edge, viewport.place);
    const stretch = { x: this.a.width / this.b.width, y: this.a.height / this.b.height };
    draw(below, 0, edge, (x, y) => viewport.place(x * stretch.x, y * stretch.y));
    this.divider.hidden = this.held;
    this.divider.style.transform = `translateX(${this.split * stage.clientWidth}px)`;
    this.root.dataset.shown = this.held ? "b" : "both";
    const shown = this.held ? this.b.label : `${this.b.label} left, ${this.a.label} right`;
    this.status.textContent = `${shown}, at ${Math.round(zoom * 1000) / 10} %.`;
  }
}
