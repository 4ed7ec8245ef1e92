// What is being prepared on a background: objects, their masks, settings. Kept in this browser, so that a reload or a
// closed tab loses nothing; the masks themselves are on the server.

const COLOURS = [
  [226, 40, 190],
  [38, 132, 255],
  [32, 168, 110],
  [240, 150, 30],
  [150, 90, 220],
  [0, 170, 190],
];

/** The colour of the n-th object's mask. */
export const colourOf = (n) => COLOURS[n % COLOURS.length];

/** A new name for a mask, not in use by another tab. */
export function newMask() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return "m" + [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const keyOf = (background) => `draft ${background}`;

/**
 * The draft of a background: {placements: [{object, reference, mask, stored}], settings, seeds, seed}. A tab has its
 * own; a new tab starts with a copy of the last one, and draws on copies of its masks (`from`).
 */
export function readDraft(background) {
  const own = parsed(sessionStorage.getItem(keyOf(background)));
  if (own) return own;
  const last = parsed(localStorage.getItem(keyOf(background)));
  if (!last) return emptyDraft();
  for (const placement of last.placements) {
    placement.from ??= placement.stored ? placement.mask : null;
    placement.mask = newMask();
    placement.stored = false;
  }
  return last;
}

export const emptyDraft = () => ({ placements: [emptyPlacement()], settings: {}, seeds: 1, seed: 321 });

export const emptyPlacement = () => ({ object: "", reference: "", mask: newMask(), stored: false });

/** Keep a draft; `stored` masks are on the server. */
export function keepDraft(background, draft) {
  const text = JSON.stringify(draft);
  sessionStorage.setItem(keyOf(background), text);
  localStorage.setItem(keyOf(background), text);
}

function parsed(text) {
  try {
    const draft = JSON.parse(text);
    return draft?.placements?.length ? draft : null;
  } catch {
    return null;
  }
}
