// The page of insertion: a background, a mask for each object, settings, the run, its results.

import { delayed, get, path, post } from "./api.js";
import { backgroundList } from "./backgrounds.js";
import { commandLine } from "./command_line.js";
import { colourOf } from "./draft.js";
import { button, element, emptyPage, noticeLine, warningList } from "./element.js";
import { hasEnded, jobPanel, watchJob } from "./jobs.js";
import { MaskEditor } from "./mask_editor.js";
import { decodeMask, encodeMask } from "./mask_png.js";
import { placementList, withOtherFiles } from "./placements.js";
import { resultGrid } from "./result_grid.js";
import { Scene } from "./scene.js";
import { settingsForm } from "./settings_form.js";

const MOST_SEEDS = 16;

/** Show the page, with the background of this id; returns a function that leaves it. */
export function insertPage(host, id, info) {
  const page = new InsertPage(host, id, info);
  page.start(id);
  return () => page.close();
}

class InsertPage {
  constructor(host, id, info) {
    this.objects = [];
    this.stop = () => {};
    this.planned = 0; // number of the newest question for a plan
    this.stored = Promise.resolve(); // one store after the other
    this.store = delayed(() => (this.stored = this.stored.then(() => this.storeAndPlan())), 400);
    this.left = this.backgroundPanel(id);
    this.right = this.insertPanel(info.settings.insert);
    this.empty = emptyPage(
      "Insert an object",
      "Drop a background, or choose one. Then paint where the object goes.",
    );
    this.place = element("div", { class: "place", hidden: true });
    this.results = element("div");
    const middle = element("div", { class: "work" }, this.empty, this.place, this.results);
    host.replaceChildren(element("div", { class: "columns insert" }, this.left, middle, this.right));
    this.editor = this.maskEditor();
  }

  backgroundPanel(id) {
    this.backgrounds = backgroundList(id, () => (this.gone = true));
    this.notice = this.backgrounds.notice;
    this.list = placementList({
      choose: (i) => this.edit(() => {}, i),
      change: (i, values) => this.edit(() => Object.assign(this.scene.placements[i], values), i),
      move: (i, by) => this.edit(() => this.scene.move(i, by), i + by),
      remove: (i) => this.edit(() => this.scene.removeAt(i), 0),
      add: () => this.edit(() => this.scene.add(), this.scene.layers.length),
    });
    this.objectsPart = element(
      "section",
      { hidden: true, class: "part" },
      element("h2", {}, "Objects"),
      this.list.node,
    );
    return element("aside", { class: "panel" }, this.backgrounds.node, this.objectsPart);
  }

  insertPanel(settings) {
    const number = (min, max) =>
      element("input", { type: "number", min, max, step: 1, onchange: () => this.store() });
    const row = (label, input) => element("label", { class: "setting" }, element("span", {}, label), input);
    this.form = settingsForm(settings, () => this.store());
    this.seeds = number(1, MOST_SEEDS);
    this.seed = number(0, 2 ** 31 - 1);
    this.run = button("Insert", () => this.insert(), { class: "primary big" });
    this.runNotice = noticeLine();
    this.warnings = warningList();
    this.command = commandLine();
    this.panel = jobPanel();
    return element(
      "aside",
      { class: "side", hidden: true },
      element(
        "section",
        { class: "panel" },
        element("h2", {}, "Insert"),
        element("div", {}, row("Results", this.seeds), row("First seed", this.seed)),
        this.run,
        this.runNotice,
        this.warnings,
        this.panel.node,
      ),
      element(
        "section",
        { class: "panel" },
        element("h3", {}, "Settings"),
        this.form.node,
        this.command.node,
      ),
    );
  }

  maskEditor() {
    const file = element("input", {
      type: "file",
      accept: "image/*",
      hidden: true,
      "aria-label": "Mask file",
      onchange: () => this.loadFile(file),
    });
    const titles = {
      load: "Load this object's mask from a file (white: the object)",
      save: "Save this object's mask as a PNG file",
      clear: "Empty this object's mask",
      fit: "Show the region that the model sees",
    };
    return new MaskEditor(this.place, {
      tools: ["brush", "eraser", "rectangle", "lasso", "polygon"],
      onmask: (layer) => this.drawn(layer),
      extra: [
        element(
          "div",
          { class: "group" },
          button("Load mask", () => file.click(), { title: titles.load }),
          button("Save mask", () => this.saveFile(), { title: titles.save }),
          button("Clear mask", () => this.editor.change((layer) => layer.clear()), { title: titles.clear }),
          button("Fit region", () => this.fitToMask(), { title: titles.fit }),
        ),
        file,
      ],
    });
  }

  close() {
    this.closed = true;
    this.stop();
    if (!this.gone) this.store.flush();
    this.editor.close();
  }

  async start(id) {
    await this.notice.ask(async () => {
      const asked = ["objects", "learnt"].map((name) => get(path(name)));
      const [objects, files] = await Promise.all([...asked, this.backgrounds.load()]);
      this.objects = withOtherFiles(objects, files);
      if (id) await this.open(await get(path("backgrounds", id)));
    });
  }

  async open(background) {
    this.scene = new Scene(background, this.objects);
    this.empty.hidden = true;
    this.place.hidden = this.right.hidden = this.objectsPart.hidden = false;
    this.form.set(this.scene.draft.settings);
    this.seeds.value = this.scene.draft.seeds;
    this.seed.value = this.scene.draft.seed;
    const ready = this.editor.open(this.scene.source(), this.scene.layers);
    this.edit(() => {}, 0);
    await Promise.all([ready, this.scene.load()]);
    this.editor.redraw();
    await this.watchLast();
    this.store();
  }

  /** Change the scene by `act`; placement `active` is drawn on afterwards. */
  edit(act, active) {
    act();
    this.editor.active = active;
    this.list.show(this.scene.placements, this.editor.active, this.objects);
    this.editor.redraw();
    this.store();
  }

  drawn(layer) {
    layer.unsaved = true;
    this.store();
  }

  async storeAndPlan() {
    await this.runNotice.ask(async () => {
      const seeds = Math.min(Math.max(Math.round(Number(this.seeds.value)) || 1, 1), MOST_SEEDS);
      const seed = Math.max(Math.round(Number(this.seed.value)) || 0, 0);
      await this.scene.store({ settings: this.form.values(), seeds, seed });
      if (!this.closed) await this.plan();
    });
  }

  /** Ask which regions the model will see, what is doubtful, and which command does the same. */
  async plan() {
    const question = ++this.planned;
    const missing = this.scene.missing();
    this.run.disabled = Boolean(missing) || this.running;
    const first = this.editor.regions.length ? "" : "Looking for the region…";
    this.runNotice.say(missing || first, "hint");
    const nothing = { rois: [], warnings: [], command: "" };
    const plan = missing ? nothing : await post(path("plan"), this.scene.request());
    if (question !== this.planned) return;
    this.runNotice.say(missing, "hint");
    const single = plan.rois.length === this.scene.placements.length;
    this.editor.regions = plan.rois.map((box, i) => ({
      box,
      colour: colourOf(single ? i : 0),
      label: `Region ${i + 1}`,
    }));
    this.editor.drawMarks();
    this.warnings.show(plan.warnings);
    this.command.show(plan.command);
  }

  async insert() {
    this.run.disabled = true;
    this.results.replaceChildren();
    const job = await this.runNotice.ask(async () => {
      await Promise.all([this.store.flush(), this.stored]);
      return post(path("insert"), this.scene.request());
    });
    if (job) this.watch(job.id);
    else this.run.disabled = false;
  }

  /** After a reload, go on watching this background's last insertion. */
  async watchLast() {
    const jobs = await get(path("jobs"));
    const { id } = this.scene.background;
    const last = jobs.find((job) => job.kind === "insert" && job.background === id);
    if (last) this.watch(last.id);
  }

  watch(id) {
    this.stop();
    this.running = true;
    this.stop = watchJob(id, async (job) => {
      this.panel.show(job);
      this.running = !hasEnded(job);
      this.run.disabled = this.running || Boolean(this.scene.missing());
      if (!job.results?.length) return;
      const made = new Set(job.results);
      const results = await this.runNotice.ask(() => get(path("results")));
      if (!results) return;
      const shown = results.filter((one) => made.has(one.id)).sort((a, b) => a.seed - b.seed);
      this.results.replaceChildren(resultGrid(shown));
    });
  }

  async loadFile(input) {
    const [file] = input.files;
    if (!file) return;
    await this.notice.ask(() => decodeMask(this.editor.layer, file));
    input.value = "";
    this.editor.redraw();
    this.drawn(this.editor.layer);
  }

  async saveFile() {
    const url = URL.createObjectURL(await encodeMask(this.editor.layer));
    const stem = this.scene.background.name.replace(/\.[^.]*$/, "");
    element("a", { href: url, download: `${stem}_mask.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  fitToMask() {
    const { editor } = this;
    const box = editor.regions[editor.active]?.box ?? editor.layer.bounds()?.box;
    if (box) editor.viewport.fit(box);
  }
}
