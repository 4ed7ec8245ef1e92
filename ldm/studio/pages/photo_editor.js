// One photo of an object: its box and its silhouette, corrected by hand. Every change is saved by itself.

import { delayed, getBlob, path, put, remove, withQuery } from "./api.js";
import { button, confirmed, element, noticeLine, warningList } from "./element.js";
import { MaskEditor } from "./mask_editor.js";
import { MaskLayer } from "./mask_layer.js";
import { decodeMask, encodeMask } from "./mask_png.js";

export class PhotoEditor {
  /**
   * @param {HTMLElement} host
   * @param {string} object  its name
   * @param {{onphoto: (photo) => void, onobject: (object) => void}} told  called with what the server answers
   */
  constructor(host, object, { onphoto, onobject }) {
    this.object = object;
    this.onphoto = onphoto;
    this.onobject = onobject;
    this.notice = noticeLine();
    this.warnings = warningList();
    this.title = element("h3");
    this.referenceButton = button("Use as reference", () => this.notice.ask(() => this.makeReference()));
    const actions = element(
      "div",
      { class: "row" },
      this.title,
      element("span", { class: "space" }),
      button("Propose again in this box", () => this.notice.ask(() => this.propose())),
      this.referenceButton,
      button("Remove photo", () => this.notice.ask(() => this.discard()), { class: "danger" }),
    );
    const place = element("div", { class: "place" });
    host.replaceChildren(
      element("section", { class: "photo-editor" }, actions, this.notice, this.warnings, place),
    );
    this.save = delayed(() => this.saveMask(), 300);
    this.editor = new MaskEditor(place, {
      tools: ["box", "brush", "eraser", "lasso", "polygon", "rectangle"],
      onmask: () => this.save(),
      onbox: (box) => this.notice.ask(() => this.saveBox(box)),
    });
  }

  /** What is not saved yet is saved, then the editor is gone. */
  close() {
    this.save.flush();
    this.editor.close();
  }

  get url() {
    return path("objects", this.object, "photos", this.photo.id);
  }

  /** Show a photo of the object. */
  async open(photo, isReference) {
    await this.save.flush();
    this.photo = photo;
    const layer = new MaskLayer(photo.width, photo.height);
    const source = {
      width: photo.width,
      height: photo.height,
      proxy: (max) => withQuery(photo.image, { max }),
    };
    const ready = this.editor.open(source, [layer], { tool: this.editor.tool });
    this.update(photo, isReference);
    await this.notice.ask(() => Promise.all([ready, this.loadMask(layer)]));
  }

  /** Take over what the server says of the photo; the drawing stays. */
  update(photo, isReference) {
    this.photo = photo;
    this.title.textContent = photo.name;
    this.referenceButton.disabled = isReference;
    this.referenceButton.textContent = isReference ? "Is the reference" : "Use as reference";
    this.warnings.show(photo.warnings);
    this.editor.setBox(photo.box);
  }

  async loadMask(layer) {
    await decodeMask(layer, await getBlob(this.photo.mask));
    layer.forget();
    this.editor.redraw();
  }

  async saveMask() {
    const { url } = this;
    await this.notice.ask(async () => this.onphoto(await put(`${url}/mask`, await encodeMask(this.editor.layer))));
  }

  async saveBox(box) {
    this.onphoto(await put(this.url, { box, propose: false }));
  }

  async propose() {
    await this.save.flush();
    this.notice.say("Looking for the object in this box…", "hint");
    const photo = await put(this.url, { box: this.editor.box, propose: true });
    this.photo = photo;
    this.onphoto(photo);
    await decodeMask(this.editor.layer, await getBlob(this.photo.mask));
    this.editor.redraw();
    this.notice.say("");
  }

  async makeReference() {
    this.onobject(await put(path("objects", this.object, "reference"), { photo: this.photo.id }));
  }

  async discard() {
    if (!(await confirmed(`Remove ${this.photo.name} from ${this.object}?`, "Remove"))) return;
    this.save.flush();
    this.onobject(await remove(this.url));
  }
}
