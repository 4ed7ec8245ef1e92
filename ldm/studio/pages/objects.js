// The page of objects: photos in, boxes and silhouettes proposed and corrected, learning.

import { get, path, post, remove, upload, withQuery } from "./api.js";
import { dropZone } from "./drop_zone.js";
import { button, confirmed, element, emptyPage, noticeLine, warningList } from "./element.js";
import { learnPanel } from "./learn.js";
import { photoCard } from "./photo_card.js";
import { PhotoEditor } from "./photo_editor.js";

const FIRST_PHOTOS = "Drop three to six photos of the object here, or choose them";

/** Show all objects and the one of this name; returns a function that leaves the page. */
export function objectsPage(host, name, info) {
  const aside = element("aside", { class: "panel" });
  const main = element("div", { class: "main" });
  host.replaceChildren(element("div", { class: "columns objects" }, aside, main));
  listOf(aside, name);
  if (name) return objectView(main, name, info, () => listOf(aside, name));
  main.replaceChildren(
    emptyPage(
      "Teach the model an object",
      "Give the object a name, press Create, then drop three to six photos of it, from different sides.",
    ),
  );
  return () => {};
}

async function listOf(aside, chosen) {
  const notice = noticeLine();
  const create = nameForm("New object", "New object", "Create", async (given) => {
    location.hash = `#objects/${encodeURIComponent((await post(path("objects"), { name: given })).name)}`;
  });
  const open = nameForm(
    "Open a folder of the project",
    "examples/objects/rocket_bee",
    "Open",
    async (folder) => {
      location.hash = `#objects/${encodeURIComponent((await post(path("objects", "open"), { folder })).name)}`;
    },
  );
  const list = element("nav", { "aria-label": "Objects" });
  const kept = aside.querySelector("nav");
  if (kept) list.replaceChildren(...kept.children);
  aside.replaceChildren(
    element("h2", {}, "Objects"),
    notice,
    list,
    create,
    element("details", {}, element("summary", {}, "Open a folder"), open),
  );
  const objects = await notice.ask(() => get(path("objects")));
  if (!objects) return;
  list.replaceChildren(...objects.map((object) => itemOf(object, object.name === chosen)));
  if (!objects.length) notice.say("No object yet.", "hint");
}

function itemOf(object, chosen) {
  const photos = `${object.photos} photo${object.photos === 1 ? "" : "s"}`;
  return element(
    "a",
    {
      class: "item",
      href: `#objects/${encodeURIComponent(object.name)}`,
      "aria-current": chosen ? "page" : null,
    },
    object.thumb ? element("img", { src: object.thumb, alt: "" }) : element("span", { class: "thumb" }),
    element(
      "span",
      {},
      element("strong", {}, object.name),
      element("small", {}, object.learnt.length ? `${photos}, learnt` : photos),
    ),
  );
}

/** One text field with a button; an error stands below it. */
function nameForm(label, placeholder, action, onsubmit) {
  const input = element("input", { type: "text", required: true, placeholder, "aria-label": label });
  const notice = noticeLine();
  const send = (event) => {
    event.preventDefault();
    notice.ask(() => onsubmit(input.value.trim()));
  };
  return element("form", { class: "inline", onsubmit: send }, input, element("button", {}, action), notice);
}

function objectView(main, name, info, onlist) {
  let object = null;
  let chosen = null; // id of the photo in the editor
  const notice = noticeLine();
  const warnings = warningList();
  const cards = element("div", { class: "photos" });
  const place = element("div", { class: "editing", hidden: true });
  const reference = referencePanel(name, (answer) => show(answer));
  const learning = learnPanel(name, info.settings.learn, () => load());
  const drop = dropZone(FIRST_PHOTOS, (files) => add(files), { multiple: true });
  const discard = button("Remove object", () => removeObject(), { hidden: true });
  const head = element("div", { class: "row head" }, element("h2", {}, name), discard);
  main.replaceChildren(
    element("div", { class: "work" }, head, notice, warnings, cards, place),
    element("aside", { class: "side" }, reference.node, learning.node),
  );
  reference.node.hidden = learning.node.hidden = true; // until the object is known
  const editor = new PhotoEditor(place, name, {
    onphoto: (photo) => {
      object.photos = object.photos.map((old) => (old.id === photo.id ? photo : old));
      if (photo.id === chosen) editor.update(photo, photo.id === object.reference);
      load();
    },
    onobject: (answer) => show(answer),
  });
  const add = async (files) => {
    await notice.ask(async () => {
      notice.say(`Looking for the object in ${files.length} photo${files.length > 1 ? "s" : ""}…`, "hint");
      const before = new Set(object?.photos.map((photo) => photo.id));
      const answer = await upload(path("objects", name, "photos"), "files", files);
      chosen = answer.photos.find((photo) => !before.has(photo.id))?.id ?? chosen;
      notice.say("");
      show(answer);
    });
    onlist();
  };
  const removeObject = async () => {
    const count = object.photos.length === 1 ? "its photo" : `its ${object.photos.length} photos`;
    const question = `Remove ${name} with ${count}? What was learnt from it and its results stay.`;
    if (!object.opened && !(await confirmed(question, "Remove"))) return;
    await notice.ask(async () => {
      await remove(path("objects", name));
      location.hash = "#objects";
    });
  };
  const choose = (id) => {
    chosen = id;
    show(object);
  };
  const made = new Map(); // photo => its card, as long as nothing about it changed
  const cardOf = (photo) => {
    const reference = photo.id === object.reference;
    const key = JSON.stringify([photo, reference]); // a changed mask has another address
    if (made.get(photo.id)?.key !== key) {
      made.set(photo.id, { key, node: photoCard(photo, { reference, onclick: () => choose(photo.id) }) });
    }
    const { node } = made.get(photo.id);
    node.setAttribute("aria-pressed", photo.id === chosen);
    return node;
  };
  let opened = null;
  const show = (answer) => {
    object = answer;
    const photos = object.photos;
    if (!photos.some((photo) => photo.id === chosen)) chosen = photos[0]?.id ?? null;
    discard.hidden = false;
    discard.textContent = object.opened ? "Close object" : "Remove object";
    discard.classList.toggle("danger", !object.opened);
    warnings.show(photos.length ? object.warnings : []);
    cards.classList.toggle("none", !photos.length);
    drop.lastChild.textContent = photos.length ? "Add photos" : FIRST_PHOTOS;
    const shown = [...photos.map(cardOf), drop];
    const other = (node, i) => cards.children[i] !== node;
    if (cards.children.length !== shown.length || shown.some(other)) {
      cards.replaceChildren(...shown); // not always: a click that is under way would be lost
    }
    place.hidden = !chosen;
    reference.show(object);
    learning.show(object);
    learning.node.hidden = !photos.length;
    const photo = photos.find((one) => one.id === chosen);
    if (!photo) opened = null;
    else if (opened !== chosen) {
      opened = chosen;
      editor.open(photo, photo.id === object.reference);
    } else editor.update(photo, photo.id === object.reference);
  };
  const load = () => notice.ask(async () => show(await get(path("objects", name))));
  load();
  return () => {
    editor.close();
    learning.close();
  };
}

/** What the model is shown, and other objects of the category. */
function referencePanel(name, onobject) {
  const notice = noticeLine();
  const hint = element("p", { class: "dim" }, "This cannot be shown yet: correct the photos that have a warning.");
  const told = (fails) => {
    hint.hidden = !fails;
    shown.hidden = fails;
  };
  const shown = element("img", {
    class: "shown",
    alt: "What the model is shown: the reference, then a crop of each photo",
    onload: () => told(false),
    onerror: () => told(true),
  });
  const category = element("div", { class: "thumbs" });
  const ask = (act) => notice.ask(async () => onobject(await act()));
  const drop = dropZone(
    "Drop pictures of other objects of its kind (optional)",
    (files) => ask(() => upload(path("objects", name, "category"), "files", files)),
    { multiple: true },
  );
  const node = element(
    "section",
    { class: "panel" },
    element("h3", {}, "What the model is shown"),
    shown,
    hint,
    element("h3", {}, "Same category"),
    category,
    drop,
    notice,
  );
  const show = (object) => {
    node.hidden = !object.photos.length;
    if (object.photos.length) shown.src = withQuery(path("objects", name, "shown"), { at: Date.now() });
    category.replaceChildren(
      ...object.category.map((one) =>
        element(
          "figure",
          {},
          element("img", { src: one.image, alt: one.name, title: one.name }),
          object.opened // its pictures are the person's own
            ? null
            : button("Remove", () => ask(() => remove(path("objects", name, "category", one.name))), {
                "aria-label": `Remove ${one.name}`,
              }),
        ),
      ),
    );
  };
  return { node, show };
}
