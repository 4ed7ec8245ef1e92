// The backgrounds: one is dropped, chosen or removed. Which one is open is in the address.

import { get, path, remove, upload, withQuery } from "./api.js";
import { dropZone } from "./drop_zone.js";
import { button, confirmed, element, noticeLine } from "./element.js";

/**
 * The list of backgrounds; `chosen` is the id of the open one, `onremoved()` is called before it leaves the page.
 * `node` is its element, `notice` its line for messages, `load()` fills it.
 */
export function backgroundList(chosen, onremoved) {
  const notice = noticeLine();
  const thumbs = element("div", { class: "thumbs" });
  const add = async (file) => {
    notice.say(`Adding ${file.name}…`, "hint");
    const { id } = await upload(path("backgrounds"), "file", [file]);
    notice.say("");
    location.hash = `#insert/${encodeURIComponent(id)}`;
  };
  let name = "";
  const discard = async () => {
    if (!(await confirmed(`Remove ${name} and the masks drawn on it? Its results stay.`, "Remove"))) return;
    await remove(path("backgrounds", chosen));
    onremoved();
    location.hash = "#insert";
  };
  const removal = button("Remove", () => notice.ask(discard), {
    class: "danger",
    hidden: true,
    title: "Remove this background and its masks",
  });
  const load = async () => {
    const known = await get(path("backgrounds"));
    thumbs.replaceChildren(...known.map((one) => thumbOf(one, one.id === chosen)));
    const open = known.find(({ id }) => id === chosen);
    name = open?.name;
    removal.hidden = !open;
  };
  const node = element(
    "div",
    { class: "part" },
    element("div", { class: "row head" }, element("h2", {}, "Background"), removal),
    dropZone("Drop a background, or choose one", ([file]) => notice.ask(() => add(file))),
    notice,
    thumbs,
  );
  return { node, notice, load };
}

function thumbOf({ id, name, width, height, image }, chosen) {
  return element(
    "a",
    {
      href: `#insert/${encodeURIComponent(id)}`,
      title: `${name}, ${width} × ${height}`,
      "aria-current": chosen ? "page" : null,
    },
    element("img", { src: withQuery(image, { max: 256 }), alt: name }),
  );
}
