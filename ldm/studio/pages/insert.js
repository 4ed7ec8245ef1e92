// The page of insertion: a background, a mask for each object, settings, the run, its results.

import { delayed, get, getBlob, path, post, put, upload, withQuery } from "./api.js";
import { commandLine } from "./command_line.js";
import { colourOf, emptyPlacement, keepDraft, newMask, readDraft } from "./draft.js";
import { dropZone } from "./drop_zone.js";
import { button, element, noticeLine, warningList } from "./element.js";
import { hasEnded, jobPanel, watchJob } from "./jobs.js";
import { MaskEditor } from "./mask_editor.js";
import { MaskLayer } from "./mask_layer.js";
import { decodeMask, encodeMask } from "./mask_png.js";
import { firstChoice, placementList } from "./placements.js";
import { resultGrid } from "./result_grid.js";
import { settingsForm } from "./settings_form.js";

const MOST_SEEDS = 16;

/** Show the page, with the background of this id; returns a function that leaves it. */
export function insertPage(host, id, info) {
  const page = new InsertPage(host, info);
  page.start(id);
  return () => page.close();
}

class InsertPage {
  constructor(host, info) {
    this.info = info;
    this.objects = [];
    this.draft = null;
    this.stop = () => {};
    this.planned = 0; // number of the newest question for a plan
    this.build(host);
  }

  build(host) {
    this.notice = noticeLine();
    this.backgrounds = element("div", { class: "thumbs" });
    this.drop = dropZone("Drop a background, or choose one", ([file]) => this.add(file));
    this.list = placementList({
      choose: (i) => this.choose(i),
      change: (i, values) => this.edit(() => Object.assign(this.draft.placements[i], values)),
      move: (i, by) => this.edit(() => this.move(i, by)),
      remove: (i) => this.edit(() => this.removeAt(i)),
      add: () => this.edit(() => this.addPlacement()),
    });
    this.form = settingsForm(this.info.settings.insert, () => this.changed());
    const number = (label, min, max) => element("input", { type: "number", min, max, step: 1, "aria-label": label, onchange: () => this.changed() });
    this.seeds = number("Results", 1, MOST_SEEDS);
    this.seed = number("First seed", 0, 2 ** 31 - 1);
    this.run = button("Insert", () => this.insert(), { class: "primary big" });
    this.runNotice = noticeLine();
    this.warnings = element("div");
    this.command = commandLine();
    this.panel = jobPanel();
    this.results = element("div");
    this.place = element("div", { class: "place" });
    this.left = element(
      "aside", { class: "panel" },
      element("h2", {}, "Background"), this.drop, this.notice, this.backgrounds,
      (this.objectsPart = element("section", { hidden: true }, element("h2", {}, "Objects"), this.list.node)),
    );
    this.right = element(
      "aside", { class: "side", hidden: true },
      element(
        "section", { class: "panel" },
        element("h2", {}, "Insert"),
        element("div", { class: "pair" }, element("label", { class: "setting" }, element("span", {}, "Results"), this.seeds), element("label", { class: "setting" }, element("span", {}, "First seed"), this.seed)),
        this.run, this.runNotice, this.warnings, this.panel.node,
      ),
      element("section", { class: "panel" }, element("h3", {}, "Settings"), this.form.node, this.command.node),
    );
    this.empty = element(
      "div", { class: "empty" },
      element("h2", {}, "Insert an object"),
      element("p", {}, "Drop a background on the left, or choose one. Then paint where the object goes."),
    );
    this.middle = element("div", { class: "work" }, this.empty, this.place, this.results);
    host.replaceChildren(element("div", { class: "columns insert" }, this.left, this.middle, this.right));
    this.fileInput = element("input", { type: "file", accept: "image/*", hidden: true, onchange: () => this.loadFile() });
    this.editor = new MaskEditor(this.place, {
      tools: ["brush", "eraser", "rectangle", "lasso", "polygon"],
      onmask: (layer) => this.drawn(layer),
      extra: [
        element(
          "div", { class: "group" },
          button("Load", () => this.fileInput.click(), { title: "Load this object's mask from a file (white: the object)" }),
          button("Save", () => this.saveFile(), { title: "Save this object's mask as a PNG file" }),
          button("Clear", () => this.clear(), { title: "Empty this object's mask" }),
        ),
        element("div", { class: "group" }, button("Fit to mask", () => this.fitToMask(), { title: "Show the region that the model sees" })),
        this.fileInput,
      ],
    });
    this.place.hidden = true;
    this.stored = Promise.resolve(); // one store after the other
    this.store = delayed(() => (this.stored = this.stored.then(() => this.storeMasks())), 400);
  }

  close() {
    this.closed = true;
    this.stop();
    this.store.flush();
    this.editor.close();
  }

  /** Run `act`; what goes wrong is said in `notice`. */
  async ask(act, notice = this.notice) {
    try {
      notice.say("");
      return await act();
    } catch (error) {
      notice.say(error.message);
      return null;
    }
  }

  async start(id) {
    await this.ask(async () => {
      [this.objects, this.known] = await Promise.all([get(path("objects")), get(path("backgrounds"))]);
      this.backgrounds.replaceChildren(
        ...this.known.map((one) =>
          element(
            "a", { href: `#insert/${encodeURIComponent(one.id)}`, title: `${one.name}, ${one.width} × ${one.height}`, "aria-current": one.id === id ? "page" : null },
            element("img", { src: withQuery(one.image, { max: 256 }), alt: one.name }),
          ),
        ),
      );
      if (id) await this.open(await get(path("backgrounds", id)));
    });
  }

  async add(file) {
    await this.ask(async () => {
      this.notice.say(`Taking ${file.name} in…`, "hint");
      const { id } = await upload(path("backgrounds"), "file", [file]);
      location.hash = `#insert/${encodeURIComponent(id)}`;
    });
  }

  async open(background) {
    this.background = background;
    this.draft = readDraft(background.id);
    const known = new Set(this.objects.flatMap((object) => [object.name, ...object.learnt]));
    for (const placement of this.draft.placements) {
      if (!known.has(placement.object)) placement.object = firstChoice(this.objects);
    }
    this.empty.hidden = true;
    this.place.hidden = this.right.hidden = this.objectsPart.hidden = false;
    this.form.set(this.draft.settings);
    this.seeds.value = this.draft.seeds;
    this.seed.value = this.draft.seed;
    const url = (...parts) => path("backgrounds", background.id, ...parts);
    const source = {
      width: background.width,
      height: background.height,
      proxy: (max) => withQuery(url("image"), { max }),
      tile: (x, y, w, h) => withQuery(url("tile"), { x, y, w, h, max: Math.max(w, h) }),
    };
    const layers = this.draft.placements.map((_, i) => this.newLayer(i));
    const ready = this.editor.open(source, layers);
    this.showPlacements();
    await Promise.all([ready, this.loadMasks(layers)]);
    this.editor.redraw();
    await this.watchLast();
    this.changed();
  }

  newLayer(i) {
    return new MaskLayer(this.background.width, this.background.height, colourOf(i));
  }

  /** Fetch the masks that the server has; a copy of another tab's mask is stored under its own name at once. */
  loadMasks(layers) {
    const { masks } = this.background;
    return Promise.all(
      this.draft.placements.map(async (placement, i) => {
        const name = masks.includes(placement.mask) ? placement.mask : placement.from;
        if (!masks.includes(name) && !placement.url) return;
        const url = placement.url ?? path("backgrounds", this.background.id, "masks", name);
        await decodeMask(layers[i], await getBlob(withQuery(url, { at: Date.now() })));
        layers[i].done = [];
        layers[i].unsaved = name !== placement.mask;
        placement.stored = !layers[i].unsaved;
      }),
    );
  }

  showPlacements() {
    this.list.show(this.draft.placements, this.editor.active, this.objects);
  }

  choose(i) {
    this.editor.active = i;
    this.showPlacements();
  }

  /** Change the list of placements. */
  edit(act) {
    act();
    this.editor.layers.forEach((layer, i) => this.recolour(layer, i));
    this.editor.active = Math.min(this.editor.active, this.draft.placements.length - 1);
    this.showPlacements();
    this.editor.redraw();
    this.changed();
  }

  recolour(layer, i) {
    layer.colour = colourOf(i);
    layer.canvases.clear();
  }

  move(i, by) {
    for (const list of [this.draft.placements, this.editor.layers]) list.splice(i + by, 0, ...list.splice(i, 1));
    this.editor.active = i + by;
  }

  removeAt(i) {
    this.draft.placements.splice(i, 1);
    this.editor.layers.splice(i, 1);
  }

  addPlacement() {
    const object = this.draft.placements.at(-1)?.object || firstChoice(this.objects);
    this.draft.placements.push({ ...emptyPlacement(), object });
    this.editor.layers.push(this.newLayer(this.draft.placements.length - 1));
    this.editor.active = this.draft.placements.length - 1;
  }

  drawn(layer) {
    layer.unsaved = true;
    this.store();
  }

  /** Something that the plan depends on has changed. */
  changed() {
    this.store();
  }

  /** Send changed masks to the server, keep the draft, ask for the plan. */
  async storeMasks() {
    await this.ask(async () => {
      const { placements } = this.draft;
      const layers = [...this.editor.layers];
      for (const [i, layer] of layers.entries()) {
        if (!layer.unsaved) continue;
        layer.unsaved = false;
        try {
          await put(path("backgrounds", this.background.id, "masks", placements[i].mask), await encodeMask(layer));
        } catch (error) {
          layer.unsaved = true;
          throw error;
        }
        Object.assign(placements[i], { stored: true, from: null, url: undefined });
      }
      Object.assign(this.draft, { settings: this.form.values(), seeds: Number(this.seeds.value) || 1, seed: Number(this.seed.value) || 0 });
      keepDraft(this.background.id, this.draft);
      if (!this.closed) await this.plan();
    }, this.runNotice);
  }

  /** What the server is asked to do. */
  request() {
    const placements = this.draft.placements.map(({ object, reference, mask }) => ({ object, mask, ...(reference ? { reference } : {}) }));
    return { background: this.background.id, placements, settings: this.form.values(), seeds: this.draft.seeds, seed: this.draft.seed };
  }

  /** What still has to be done before an insertion; "": nothing. */
  missing() {
    if (!this.objects.length) return "Learn an object first, or give one photos, on the page Objects.";
    const { placements } = this.draft;
    const which = placements.length > 1 ? (i) => ` ${i + 1}` : () => "";
    const noObject = placements.findIndex((one) => !one.object);
    if (noObject >= 0) return `Choose object${which(noObject)}.`;
    const noMask = this.editor.layers.findIndex((layer) => !layer.bounds());
    return noMask >= 0 ? `Paint where object${which(noMask)} goes.` : "";
  }

  async plan() {
    const question = ++this.planned;
    const missing = this.missing();
    this.run.disabled = Boolean(missing) || this.running;
    this.runNotice.say(missing, "hint");
    if (missing) {
      this.showPlan({ rois: [], warnings: [], command: "" });
      return;
    }
    const plan = await post(path("plan"), this.request());
    if (question === this.planned) this.showPlan(plan);
  }

  showPlan({ rois, warnings, command }) {
    this.editor.regions = rois.map((box, i) => ({ box, colour: colourOf(rois.length === this.draft.placements.length ? i : 0), label: `Region ${i + 1}` }));
    this.editor.drawMarks();
    this.warnings.replaceChildren(...[warningList(warnings)].filter(Boolean));
    this.command.show(command);
  }

  async insert() {
    this.run.disabled = true;
    this.results.replaceChildren();
    const job = await this.ask(async () => {
      await Promise.all([this.store.flush(), this.stored]);
      return post(path("insert"), this.request());
    }, this.runNotice);
    if (job) this.watch(job.id);
    else this.run.disabled = false;
  }

  /** After a reload, go on watching this background's last insertion. */
  async watchLast() {
    const jobs = await get(path("jobs"));
    const last = jobs.find((job) => job.kind === "insert" && job.background === this.background.id);
    if (last) this.watch(last.id);
  }

  watch(id) {
    this.stop();
    this.running = true;
    this.stop = watchJob(id, async (job) => {
      this.panel.show({ ...job, previews: hasEnded(job) ? [] : job.previews });
      this.running = !hasEnded(job);
      this.run.disabled = this.running;
      if (!job.results?.length) return;
      const made = new Set(job.results);
      const results = await this.ask(() => get(path("results")), this.runNotice);
      if (results) this.results.replaceChildren(resultGrid(results.filter((one) => made.has(one.id))));
    });
  }

  async loadFile() {
    const [file] = this.fileInput.files;
    if (!file) return;
    await this.ask(() => decodeMask(this.editor.layer, file));
    this.fileInput.value = "";
    this.editor.redraw();
    this.drawn(this.editor.layer);
  }

  async saveFile() {
    const url = URL.createObjectURL(await encodeMask(this.editor.layer));
    const stem = this.background.name.replace(/\.[^.]*$/, "");
    element("a", { href: url, download: `${stem}_mask.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  clear() {
    this.editor.change((layer) => {
      for (let y = 0; y < layer.height; y++) layer.setRow(y, 0, layer.width, 0);
    });
  }

  fitToMask() {
    const { editor } = this;
    const box = editor.regions[editor.active]?.box ?? editor.layer.bounds()?.box;
    if (box) editor.viewport.fit(box);
  }
}
