// The command that does the same in a shell, with a button that copies it.

import { button, element } from "./element.js";

/** `node` is the element, `show(command)` fills it; an empty command hides it. */
export function commandLine() {
  const code = element("code", { tabindex: "0" });
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard without https: the person presses Ctrl+C
      copy.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  const node = element(
    "div",
    { class: "command", hidden: true },
    element("div", { class: "row" }, element("h3", {}, "The same in a shell"), copy),
    element("pre", {}, code),
  );
  const show = (command) => {
    code.textContent = command ?? "";
    node.hidden = !command;
  };
  return { node, show };
}
