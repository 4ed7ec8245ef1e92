// DOM elements made from plain values. Text is always text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * One HTML element: `on...` functions are listeners, `true`/`false` set or omit an attribute, other values are
 * attributes; a string child becomes a text node, null is left out.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** A button with a text; `more` are further attributes. */
export function button(label, onclick, more = {}) {
  return element("button", { type: "button", onclick, ...more }, label);
}

const ICONS = {
  brush: "M15 3l2 2-8 8-2-2zM6 12c-2 0-3 1-3 5 3 0 5-1 5-3z",
  eraser: "M8 16l-5-5 8-8 6 6-7 7zM7 7l6 6M8 16h9",
  rectangle: "M3 5h14v10H3z",
  lasso: "M10 4c4 0 7 2 7 5s-3 5-7 5-7-2-7-5 3-5 7-5zM6 13c-2 1-1 4 1 4",
  polygon: "M4 16L3 7l7-4 7 6-4 7z",
  undo: "M7 4L3 8l4 4M3 8h8c4 0 6 2 6 4s-2 4-6 4H8",
  redo: "M13 4l4 4-4 4M17 8H9c-4 0-6 2-6 4s2 4 6 4h3",
  fit: "M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4",
  box: "M5 5h10v10H5zM3 3h4v4H3zM13 13h4v4h-4z",
};

/** An icon button of the editor's toolbar; its name is read aloud and shown as a tooltip. */
export function iconButton(icon, label, onclick, more = {}) {
  const drawing = svg("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" });
  drawing.append(svg("path", { d: ICONS[icon] }));
  return element("button", { type: "button", onclick, "aria-label": label, title: label, ...more }, drawing);
}

/**
 * A line that tells of an error or a state near its cause: `say(text)`, `say("")` hides it. `ask(act)` runs `act`,
 * and says what goes wrong; its promise is what `act` gives, null after an error.
 */
export function noticeLine() {
  const line = element("p", { class: "notice", role: "status", hidden: true });
  line.say = (text, kind = "error") => {
    line.textContent = text;
    line.dataset.kind = kind;
    line.hidden = !text;
  };
  line.ask = async (act) => {
    try {
      line.say("");
      return await act();
    } catch (error) {
      line.say(error.message);
      return null;
    }
  };
  return line;
}

/** What a page shows as long as there is nothing on it: what will be here, and what to do for it. */
export const emptyPage = (title, text) =>
  element("div", { class: "empty" }, element("h2", {}, title), element("p", {}, text));

/** A list of warnings: `show(texts)`; without any it is hidden. */
export function warningList() {
  const list = element("ul", { class: "warnings", hidden: true });
  list.show = (texts) => {
    list.replaceChildren(...texts.map((text) => element("li", {}, text)));
    list.hidden = !texts.length;
  };
  return list;
}

/** Ask before something is removed for good; resolves to whether the person agreed. */
export function confirmed(question, action) {
  const answers = element(
    "div",
    { class: "row" },
    element("span", { class: "space" }),
    element("button", { value: "" }, "Cancel"),
    element("button", { value: "yes", class: "danger" }, action),
  );
  const dialog = element(
    "dialog",
    { class: "question", "aria-label": action },
    element("form", { method: "dialog" }, element("p", {}, question), answers),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    }),
  );
}
