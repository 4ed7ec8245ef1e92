// Requests to the server. Every failure is an Error whose message is one line for the person.

/** Path of the API from its parts: each is escaped, so that any name is one part. */
export function path(...parts) {
  return "/api/" + parts.map(encodeURIComponent).join("/");
}

/** This tab's name: the server takes the jobs of all tabs in turn. */
function tab() {
  const known = sessionStorage.getItem("tab");
  if (known) return known;
  const made = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(36)).join("");
  sessionStorage.setItem("tab", made);
  return made;
}

async function request(method, url, body) {
  const options = { method, headers: { "X-Tab": tab() } };
  if (body instanceof Blob || body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  if (body instanceof Blob) options.headers["Content-Type"] = "image/png";
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The studio's server does not answer: is `bash studio.sh` still running?");
  }
  if (!response.ok) throw new Error(await errorOf(response));
  return response;
}

async function errorOf(response) {
  const { error } = await response.json().catch(() => ({}));
  return error ?? `The server answered ${response.status} ${response.statusText}`;
}

const SLOW = 400; // ms until the head of the page tells that something is awaited
let awaited = 0;

/** Tell in the head of the page that this promise is awaited, if it takes long; gives the promise back. */
export function telling(promise) {
  let told = false;
  const tell = (more) => {
    awaited += more;
    document.querySelector("#loading").textContent = awaited ? "Loading…" : "";
  };
  const timer = setTimeout(() => {
    told = true;
    tell(1);
  }, SLOW);
  const end = () => {
    clearTimeout(timer);
    if (told) tell(-1);
  };
  promise.then(end, end);
  return promise;
}

const answered = (method, url, body) => {
  const answer = request(method, url, body).then((response) =>
    response.status === 204 ? null : response.json(),
  );
  const repeated = method === "GET" && url.startsWith(path("jobs")); // asked again and again
  return repeated ? answer : telling(answer);
};

export const get = (url) => answered("GET", url);
export const post = (url, body = {}) => answered("POST", url, body);
export const put = (url, body) => answered("PUT", url, body);
export const remove = (url) => answered("DELETE", url);
export const getBlob = (url) => telling(request("GET", url).then((response) => response.blob()));

/** Upload files byte for byte under one form field. */
export function upload(url, field, files) {
  const form = new FormData();
  for (const file of files) form.append(field, file, file.name);
  return answered("POST", url, form);
}

/** The URL with further query parameters. */
export function withQuery(url, parameters) {
  const separator = url.includes("?") ? "&" : "?";
  return url + separator + new URLSearchParams(parameters);
}

/** Run `act` once no further call came for `milliseconds`; `flush()` runs it at once and returns its promise. */
export function delayed(act, milliseconds) {
  let timer = 0;
  const run = () => {
    clearTimeout(timer);
    timer = 0;
    return act();
  };
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
  call.flush = () => (timer ? run() : Promise.resolve());
  return call;
}
