// The page of results: all of them, newest first; one with what made it; two side by side.

import { get, path, post, remove, withQuery } from "./api.js";
import { commandLine } from "./command_line.js";
import { Compare } from "./compare.js";
import { keepDraft, newMask } from "./draft.js";
import { button, confirmed, element, emptyPage, noticeLine } from "./element.js";
import { jobPanel, watchJob } from "./jobs.js";
import { stemOf } from "./placements.js";
import { beforeSource, downloads, resultSource } from "./result_grid.js";

/** Show all results, one (`[id]`), or two (`[id, id]`); returns a function that leaves the page. */
export function resultsPage(host, ids, info) {
  const notice = noticeLine();
  const page = element("div", { class: ids.length ? "fill" : "page" }, notice);
  host.replaceChildren(page);
  let leave = () => {};
  let left = false;
  const load = async () => {
    try {
      const results = await get(path("results"));
      if (left) return;
      const chosen = ids.map((id) => results.find((one) => one.id === id));
      if (chosen.includes(undefined)) throw new Error("This result is not in the output folder any more.");
      const show = [showAll, showOne, showTwo][chosen.length];
      leave = show(page, { results, settings: info.settings.insert }, ...chosen) ?? leave;
    } catch (error) {
      notice.say(error.message);
      const back = element("a", { class: "button", href: "#results" }, "All results");
      page.replaceChildren(element("div", { class: "empty" }, notice, ids.length ? back : null));
    }
  };
  load();
  return () => {
    left = true;
    leave();
  };
}

const whenOf = (result) => new Date(result.created * 1000).toLocaleString();
const objectsOf = (result) => result.objects.map(stemOf).join(", ");

function showAll(page, { results }) {
  if (!results.length) {
    page.append(emptyPage("No results yet", "Results appear here once you have inserted an object: see the page Insert."));
    return;
  }
  const chosen = [];
  const compare = button(
    "Compare two",
    () => (location.hash = `#results/${chosen.map(encodeURIComponent).join("/")}`),
    { disabled: true },
  );
  const boxes = [];
  const mark = (id, box) => {
    if (box.checked) chosen.push(id);
    else chosen.splice(chosen.indexOf(id), 1);
    compare.disabled = chosen.length !== 2;
    for (const one of boxes) one.disabled = chosen.length === 2 && !one.checked;
  };
  const card = (result) => {
    const box = element("input", { type: "checkbox", onchange: () => mark(result.id, box) });
    boxes.push(box);
    const link = `#results/${encodeURIComponent(result.id)}`;
    return element(
      "figure",
      { class: "card" },
      element(
        "a",
        { class: "picture", href: link },
        element("img", { src: result.thumb, alt: result.name, loading: "lazy" }),
      ),
      element(
        "figcaption",
        {},
        element("a", { href: link }, objectsOf(result) || result.name),
        element("span", { class: "dim" }, `Seed ${result.seed} · ${result.width} × ${result.height}`),
        element("span", { class: "dim" }, whenOf(result)),
        element("label", {}, box, "Compare"),
      ),
    );
  };
  page.append(
    element(
      "div",
      { class: "row head" },
      element("h2", {}, "Results"),
      element("span", { class: "space" }),
      element("span", { class: "dim" }, "To compare, tick two results."),
      compare,
    ),
    element("div", { class: "grid" }, results.map(card)),
  );
}

function showOne(page, { results, settings }, result) {
  const place = element("div", { class: "place" });
  const notice = noticeLine();
  const panel = jobPanel();
  const command = commandLine();
  command.show(result.command);
  let stop = () => {};
  const replay = async () => {
    const { id } = await post(path("results", result.id, "replay"));
    stop();
    stop = watchJob(id, (job) => panel.show(job));
  };
  const discard = async () => {
    if (!(await confirmed(`Remove ${result.name} from the output folder?`, "Remove"))) return;
    await remove(path("results", result.id));
    location.hash = "#results";
  };
  const facts = [
    ["Objects", objectsOf(result)],
    ["Background", result.background_name],
    ["Made", whenOf(result)],
    ["Seed", result.seed],
    ["Size", `${result.width} × ${result.height} pixels`],
    ...Object.entries(result.settings).map(([key, value]) => [
      settings.find((one) => one.key === key)?.label ?? key,
      value,
    ]),
  ];
  const side = element(
    "aside",
    { class: "side" },
    element(
      "section",
      { class: "panel" },
      element("h2", {}, objectsOf(result) || result.name),
      element("div", { class: "row" }, downloads(result)),
      element(
        "div",
        { class: "row" },
        button("Open in Insert", () => notice.ask(() => reopen(result))),
        button("Replay", () => notice.ask(replay), {
          title: "Make it again from its recipe, and compare the pixels",
        }),
        result.removable ? button("Remove", () => notice.ask(discard), { class: "danger" }) : null,
      ),
      notice,
      panel.node,
      element(
        "dl",
        {},
        facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]),
      ),
      command.node,
    ),
  );
  const others = results.filter((one) => one.id !== result.id);
  const other = element(
    "select",
    {
      "aria-label": "Compare with another result",
      onchange: () =>
        (location.hash = `#results/${encodeURIComponent(result.id)}/${encodeURIComponent(other.value)}`),
    },
    element("option", { value: "" }, "Compare with another result…"),
    others.map((one) =>
      element("option", { value: one.id }, `${objectsOf(one)}, seed ${one.seed}, ${whenOf(one)}`),
    ),
  );
  page.append(
    element(
      "div",
      { class: "columns result" },
      element(
        "div",
        { class: "work" },
        element(
          "div",
          { class: "row" },
          element("a", { href: "#results" }, "All results"),
          element("span", { class: "space" }),
          others.length ? other : null,
        ),
        place,
      ),
      side,
    ),
  );
  const compare = new Compare(place, resultSource(result), beforeSource(result));
  return () => {
    stop();
    compare.close();
  };
}

function showTwo(page, _, one, two) {
  const place = element("div", { class: "place" });
  page.append(
    element(
      "div",
      { class: "work" },
      element("div", { class: "row" }, element("a", { href: "#results" }, "All results")),
      place,
    ),
  );
  const source = (result) => ({
    ...resultSource(result),
    label: `${objectsOf(result)}, seed ${result.seed}`,
  });
  const compare = new Compare(place, source(two), source(one));
  return () => compare.close();
}

/** Prepare an insertion like this one: its background, masks, objects and settings. */
async function reopen(result) {
  if (!result.placements.length) {
    throw new Error("It was made in a shell: to use its background again, drop it on the page Insert.");
  }
  await get(path("backgrounds", result.background)); // says so if it has been removed
  const masks = path("results", result.id, "mask");
  const placements = result.placements.map(({ object, reference }, index) => ({
    object,
    reference: reference ?? "",
    mask: newMask(),
    url: withQuery(masks, { index }),
    stored: false,
  }));
  keepDraft(result.background, { placements, settings: result.settings, seeds: 1, seed: result.seed });
  location.hash = `#insert/${encodeURIComponent(result.background)}`;
}
