// The studio: which page is shown, by the address behind "#".

import { get, path } from "./api.js";
import { element } from "./element.js";
import { insertPage } from "./insert.js";
import { hasEnded, jobsPage } from "./jobs.js";
import { objectsPage } from "./objects.js";
import { resultsPage } from "./results.js";

const PAGES = {
  objects: (host, [name], info) => objectsPage(host, name, info),
  insert: (host, [background], info) => insertPage(host, background, info),
  results: (host, parts, info) => resultsPage(host, parts, info),
  jobs: (host) => jobsPage(host),
};

const host = document.querySelector("main");
let leave = () => {};
let info = null;

async function show() {
  const [name, ...parts] = location.hash.slice(1).split("/").map(decodeURIComponent);
  leave();
  leave = () => {};
  const page = PAGES[name] ? name : "objects";
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Studio: ${page}`;
  try {
    info ??= await get(path("info"));
  } catch (error) {
    host.replaceChildren(
      element("div", { class: "empty" }, element("p", { class: "notice" }, error.message)),
    );
    return;
  }
  document.querySelector("#base").textContent =
    `${info.base}, ${info.image_size} pixels · version ${info.version}`;
  leave = PAGES[page](host, parts.filter(Boolean), info);
  document.body.dataset.page = page;
}

/** How many jobs are at work, beside the link to them; in the head, if the server is lost or has no base. */
async function count() {
  let [working, lost] = [0, ""];
  try {
    working = (await get(path("jobs"))).filter((job) => !hasEnded(job)).length;
    lost = (await get(path("info"))).error;
  } catch (error) {
    lost = error.message;
  }
  document.querySelector("#working").textContent = working || "";
  document.querySelector("#lost").textContent = lost;
  setTimeout(count, document.hidden ? 20_000 : 4000);
}

addEventListener("hashchange", show);
show();
count();
