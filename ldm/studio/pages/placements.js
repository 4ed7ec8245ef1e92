// The objects of an insertion, in their order: which object, which reference, which mask.

import { button, element } from "./element.js";
import { fileName } from "./learn.js";
import { colourOf } from "./draft.js";

/**
 * The list of placements. `act` has {choose(i), change(i, values), move(i, by), remove(i), add()}.
 * `show(placements, active, objects)` brings `node` up to date.
 */
export function placementList(act) {
  const list = element("ol", { class: "placements" });
  const node = element(
    "div",
    {},
    list,
    button("Add another object", () => act.add(), { class: "quiet" }),
  );
  const show = (placements, active, objects) =>
    list.replaceChildren(
      ...placements.map((one, i) => rowOf(one, i, placements.length, i === active, objects, act)),
    );
  return { node, show };
}

function rowOf(placement, i, count, active, objects, act) {
  const swatch = element("span", { class: "swatch" });
  swatch.style.background = `rgb(${colourOf(i).join(" ")})`;
  const object = element(
    "select",
    { "aria-label": "Object", onchange: () => act.change(i, { object: object.value, reference: "" }) },
    element("option", { value: "" }, "Choose an object"),
    objects.flatMap(optionsOf),
  );
  object.value = placement.object;
  const reference = referenceOf(placement, i, objects, act);
  const moves = [
    ["↑", "Earlier", -1, i === 0],
    ["↓", "Later", 1, i === count - 1],
  ].map(([sign, label, by, disabled]) =>
    button(sign, () => act.move(i, by), {
      "aria-label": `${label}: object ${i + 1}`,
      title: label,
      disabled,
    }),
  );
  return element(
    "li",
    { class: "placement", "aria-current": active ? "true" : null },
    element(
      "button",
      {
        type: "button",
        class: "pick",
        onclick: () => act.choose(i),
        "aria-pressed": String(active),
        title: "Draw this object's mask",
      },
      swatch,
      `Mask ${i + 1}`,
    ),
    object,
    reference,
    count > 1
      ? element(
          "div",
          { class: "row" },
          moves,
          button("Remove", () => act.remove(i), { "aria-label": `Remove object ${i + 1}` }),
        )
      : null,
  );
}

/** Which photo the model is shown as the reference: the one chosen for the object, or another; null without photos. */
function referenceOf(placement, i, objects, act) {
  const owner = objects.find((one) => one.name === placement.object || one.learnt.includes(placement.object));
  const photos = Object.entries(owner?.names ?? {});
  if (photos.length < 2) return null;
  const inFile = placement.object !== owner.name; // an object file does not say which folder its photos are in
  const select = element(
    "select",
    {
      "aria-label": "Reference view",
      title: "The photo that gives the view: the pose of the object",
      onchange: () => act.change(i, { reference: select.value }),
    },
    element("option", { value: "" }, "View: the reference"),
    photos.map(([id, name]) =>
      element("option", { value: inFile ? `${owner.name}/${id}` : id }, `View: photo ${id}, ${name}`),
    ),
  );
  select.value = placement.reference ?? "";
  if (select.selectedIndex < 0) select.value = ""; // that photo has been removed
  return select;
}

/** The choices that an object gives: each object file learnt from it, and the object as it is. */
function optionsOf(object) {
  const files = object.learnt.map((file) => {
    const stem = stemOf(file);
    const label = stem === object.name ? `${stem} (learnt)` : `${object.name}: ${stem}`;
    return element("option", { value: file }, label);
  });
  if (!object.photos) return files;
  return [...files, element("option", { value: object.name }, `${object.name} (not learnt)`)];
}

/** An object file's name, without folder and ending. */
export const stemOf = (file) => fileName(file).replace(/\.safetensors$/, "");

/** The objects, and those that only an object file is left of: {name, photos, names, learnt}. */
export function withOtherFiles(objects, files) {
  const listed = new Set(objects.flatMap((object) => object.learnt));
  const others = files.map(({ file }) => file).filter((file) => !listed.has(file));
  return [...objects, ...others.map((file) => ({ name: stemOf(file), photos: 0, names: {}, learnt: [file] }))];
}

/** What to choose for a new placement: the first object file, else the first object with photos. */
export function firstChoice(objects) {
  const learnt = objects.find((object) => object.learnt.length);
  return learnt ? learnt.learnt[0] : (objects.find((object) => object.photos)?.name ?? "");
}
