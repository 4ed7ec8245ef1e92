// Where files come in: dropped, or chosen by click or keyboard. Their bytes are handed on untouched.

import { element } from "./element.js";

/**
 * @param {string} text  what to drop here
 * @param {(files: File[]) => Promise<void>} onfiles
 * @param {{multiple?: boolean, accept?: string}} options
 */
export function dropZone(text, onfiles, { multiple = false, accept = "image/*,.tif,.tiff" } = {}) {
  const take = async (list) => {
    const files = [...list].slice(0, multiple ? undefined : 1);
    if (!files.length) return;
    zone.classList.add("busy");
    try {
      await onfiles(files);
    } finally {
      zone.classList.remove("busy");
      input.value = "";
    }
  };
  const input = element("input", { type: "file", multiple, accept, onchange: () => take(input.files) });
  const over = (on) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", on);
  };
  const zone = element(
    "label",
    {
      class: "drop",
      ondragover: over(true),
      ondragleave: over(false),
      ondrop: (event) => {
        over(false)(event);
        take(event.dataTransfer.files);
      },
    },
    input,
    element("span", {}, text),
  );
  return zone;
}
