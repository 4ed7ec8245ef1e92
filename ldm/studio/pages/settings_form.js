// The settings of learning or inserting, as the server describes them: the common ones, the others folded away.

import { button, element } from "./element.js";

/**
 * A form for settings [{key, label, help, type, choices, default, min, max, group}].
 * `node` is its element, `values()` gives what differs from the defaults, `set(values)` fills it.
 */
export function settingsForm(settings, onchange = () => {}) {
  const fields = settings.map((setting) => ({ setting, input: inputOf(setting, onchange) }));
  const rows = (group) =>
    fields.filter(({ setting }) => (setting.group === "main") === (group === "main")).map(rowOf);
  const set = (values) => {
    for (const { setting, input } of fields) write(setting, input, values[setting.key] ?? setting.default);
  };
  const values = () =>
    Object.fromEntries(
      fields
        .map(({ setting, input }) => [setting, read(setting, input)])
        .filter(([setting, value]) => value !== undefined && value !== setting.default)
        .map(([setting, value]) => [setting.key, value]),
    );
  const more = rows("more");
  const reset = () => {
    set({});
    onchange();
  };
  const node = element(
    "form",
    { class: "settings", onsubmit: (event) => event.preventDefault() },
    rows("main"),
    more.length
      ? element("details", {}, element("summary", {}, `More settings (${more.length})`), more)
      : null,
    button("Reset to defaults", reset, { class: "quiet" }),
  );
  set({});
  return { node, values, set };
}

function inputOf({ key, type, choices, min, max }, onchange) {
  const shared = { name: key, onchange };
  if (type === "choice") {
    return element(
      "select",
      shared,
      choices.map((choice) => element("option", { value: choice }, String(choice))),
    );
  }
  if (type === "bool") return element("input", { type: "checkbox", ...shared });
  if (type === "text") return element("input", { type: "text", ...shared });
  return element("input", { type: "number", min, max, step: type === "int" ? 1 : "any", ...shared });
}

function rowOf({ setting, input }) {
  return element(
    "label",
    { class: "setting", title: setting.help },
    element("span", {}, setting.label),
    input,
  );
}

function write({ type }, input, value) {
  if (type === "bool") input.checked = Boolean(value);
  else input.value = value ?? "";
}

/** The value of an input; undefined: empty, the default counts. */
function read({ type, choices }, input) {
  if (type === "bool") return input.checked;
  if (type === "choice") return choices.find((choice) => String(choice) === input.value);
  if (input.value === "") return undefined;
  return type === "text" ? input.value : Number(input.value);
}
