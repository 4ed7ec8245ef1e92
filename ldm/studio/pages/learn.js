// Learning an object: settings, the run's progress, the object files that came out.

import { get, path, post } from "./api.js";
import { button, element, noticeLine } from "./element.js";
import { commandLine } from "./command_line.js";
import { hasEnded, jobPanel, watchJob } from "./jobs.js";
import { settingsForm } from "./settings_form.js";

/** The panel of an object; `node`, `show(object)`, `close()`. `onend` is called when a run has ended. */
export function learnPanel(name, settings, onend) {
  const form = settingsForm(settings, () => showCommand());
  const notice = noticeLine();
  const panel = jobPanel();
  const command = commandLine();
  const learnt = element("ul", { class: "plain" });
  const start = button("Learn", () => begin(), { class: "primary big" });
  const node = element(
    "section",
    { class: "panel" },
    element("h3", {}, "Learn"),
    form.node,
    start,
    notice,
    panel.node,
    learnt,
    command.node,
  );
  let stop = () => {};
  const watch = (id) => {
    stop();
    let ran = false;
    stop = watchJob(id, (job) => {
      panel.show(job);
      start.disabled = !hasEnded(job);
      if (hasEnded(job) && ran) onend();
      ran = true;
    });
  };
  const begin = async () => {
    start.disabled = true;
    const job = await notice.ask(() => post(path("objects", name, "learn"), { settings: form.values() }));
    if (job) watch(job.id);
    else start.disabled = false;
  };
  notice.ask(async () => {
    const jobs = await get(path("jobs"));
    const last = jobs.find((job) => job.kind === "learn" && job.object === name);
    if (last) watch(last.id);
  });
  let known = "";
  const showCommand = () => {
    const values = Object.entries(form.values()).map(([key, value]) => quoted(`${key}=${value}`));
    command.show([known, ...values].join(" "));
  };
  const show = (object) => {
    known = object.command;
    showCommand();
    const lines = object.learnt.map(({ file, steps, score }) => {
      const facts = [
        `${steps} steps`,
        score === null || score === undefined ? null : `score ${Number(score).toFixed(3)}`,
      ];
      return element("li", {}, element("strong", {}, fileName(file)), ` ${facts.filter(Boolean).join(", ")}`);
    });
    learnt.replaceChildren(...lines);
    learnt.hidden = !lines.length;
  };
  return { node, show, close: () => stop() };
}

/** A word of a shell command. */
const quoted = (word) => (/^[\w.,=+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

export const fileName = (file) => file.split("/").at(-1);
