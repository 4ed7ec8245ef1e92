// Jobs: what the server works on. A job is watched by asking for it, so that any number of tabs may do so.

import { get, path, post } from "./api.js";
import { button, element, emptyPage, noticeLine } from "./element.js";
import { curve } from "./loss_curve.js";

const EVERY = 700; // ms between two questions
const ENDED = new Set(["done", "failed", "cancelled"]);
const STATES = {
  queued: "Waiting",
  running: "Running",
  paused: "Paused",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};
const KINDS = { learn: "Learning", insert: "Insertion", replay: "Replay" };

export const hasEnded = (job) => ENDED.has(job.state);

/** Call `onchange(job)` now and until the job ends; returns a function that stops watching. */
export function watchJob(id, onchange) {
  let stopped = false;
  const ask = async () => {
    let wait = document.hidden ? 5 * EVERY : EVERY;
    try {
      const job = await get(path("jobs", id));
      if (stopped) return;
      onchange(job);
      if (hasEnded(job)) return;
    } catch {
      wait = 5 * EVERY; // the server restarts: the job is still there afterwards
    }
    if (!stopped) setTimeout(ask, wait);
  };
  ask();
  return () => (stopped = true);
}

/** Seconds in words. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** How far a job is, in one line. */
function lineOf(job) {
  const parts = [STATES[job.state] ?? job.state];
  const steps = `${job.step ?? 0} of ${job.steps}`;
  if (job.steps && !hasEnded(job) && !job.message?.endsWith(steps)) parts.push(`step ${steps}`);
  if (job.state === "running" && job.seconds_left) parts.push(`about ${duration(job.seconds_left)} left`);
  if (job.finished && job.started && !job.message) parts.push(`took ${duration(job.finished - job.started)}`);
  if (job.message) parts.push(job.message);
  return parts.join(" · ");
}

/** A job's progress with its buttons; `show(job)` brings it up to date. */
export function jobPanel() {
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const line = element("p", { class: "status", role: "status" });
  const buttons = element("div", { class: "row" });
  const notice = noticeLine();
  const charts = element("div", { class: "charts" });
  const previews = element("div", { class: "previews" });
  const node = element(
    "section",
    { class: "job", hidden: true },
    bar,
    line,
    notice,
    buttons,
    previews,
    charts,
  );
  let shown = "";
  const act = (id, verb) => () => notice.ask(async () => show(await post(path("jobs", id, verb))));
  const show = (job) => {
    node.hidden = !job;
    if (!job) return;
    node.dataset.state = job.state;
    bar.value = job.progress ?? 0;
    bar.hidden = hasEnded(job);
    line.textContent = lineOf(job);
    notice.say(job.error ?? "");
    const state = `${job.id} ${job.state}`;
    if (state !== shown) {
      shown = state; // the buttons keep the focus while nothing about them changes
      const pauses = job.kind === "learn" && job.state === "running";
      buttons.replaceChildren(
        ...(pauses ? [button("Pause", act(job.id, "pause"))] : []),
        ...(job.state === "paused" ? [button("Resume", act(job.id, "resume"), { class: "primary" })] : []),
        ...(hasEnded(job) ? [] : [button("Cancel", act(job.id, "cancel"))]),
      );
    }
    charts.replaceChildren(
      ...[curve("Loss", job.loss ?? []), curve("Score", job.scores ?? [])].filter(Boolean),
    );
    const gone = job.kind !== "learn" && hasEnded(job); // the results have taken their place
    const urls = gone ? [] : (job.previews ?? []);
    urls.forEach((url, i) => {
      const image = previews.children[i] ?? previews.appendChild(element("img", { alt: `Preview ${i + 1}` }));
      if (image.getAttribute("src") !== url) image.src = url;
    });
    while (previews.children.length > urls.length) previews.lastChild.remove();
  };
  return { node, show };
}

/** The page of all jobs, newest first. */
export function jobsPage(host) {
  const list = element("div", { class: "joblist" });
  const notice = noticeLine();
  const empty = emptyPage("No jobs yet", "What you start is listed here: learn an object, or insert one.");
  const title = element("h2", {}, "Jobs");
  title.hidden = empty.hidden = true; // until the jobs are known
  host.replaceChildren(element("div", { class: "page" }, title, notice, empty, list));
  const panels = new Map(); // id => {node, show}
  let timer = 0;
  const ask = async () => {
    try {
      const jobs = await get(path("jobs"));
      notice.say("");
      title.hidden = !jobs.length;
      empty.hidden = Boolean(jobs.length);
      for (const job of jobs) {
        if (!panels.has(job.id)) panels.set(job.id, cardOf(job));
        panels.get(job.id).show(job);
      }
      const order = jobs.map((job) => panels.get(job.id).node);
      if (order.some((node, i) => list.children[i] !== node)) list.replaceChildren(...order);
    } catch (error) {
      notice.say(error.message);
    }
    timer = setTimeout(ask, 2 * EVERY);
  };
  ask();
  return () => clearTimeout(timer);
}

function cardOf(job) {
  const panel = jobPanel();
  const where = job.kind === "learn" ? `#objects/${encodeURIComponent(job.object ?? "")}` : null;
  const title = `${KINDS[job.kind] ?? job.kind}${job.object ? ` of ${job.object}` : ""}`;
  const links = element("div", { class: "row" });
  const node = element(
    "article",
    { class: "card" },
    element("h3", {}, where ? element("a", { href: where }, title) : title),
    element("p", { class: "dim" }, new Date(job.created * 1000).toLocaleString()),
    panel.node,
    links,
  );
  const show = (now) => {
    panel.show(now);
    links.replaceChildren(
      ...(now.results ?? []).map((id, i) =>
        element("a", { href: `#results/${encodeURIComponent(id)}` }, `Result ${i + 1}`),
      ),
    );
  };
  return { node, show };
}
