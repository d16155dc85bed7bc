// The page inside TensorBoard: runs come from the plugin's routes, and are asked for again while the page is seen.

import { Page } from "./page.js";
import { Run } from "./runs.js";

const BASE = new URL(".", import.meta.url);
const EVERY = 10_000;

async function json(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`TensorBoard answered ${answer.status}: ${(await answer.text()).slice(0, 200)}`);
  return answer.json();
}

/** TensorBoard calls this once, in a frame of its own. */
export async function render() {
  const sheet = document.createElement("link");
  Object.assign(sheet, { rel: "stylesheet", href: new URL("page.css", BASE) });
  const ready = new Promise((resolve) => {
    sheet.onload = sheet.onerror = resolve;
  });
  document.head.append(sheet);
  const root = document.createElement("main");
  document.body.replaceChildren(root);
  await ready;
  const page = new Page(root, location.hash, (hash) => `${new URL("page.html", BASE)}#${hash}`);
  const known = new Map(); // name → {run, seen}
  const ask = async () => {
    try {
      if (await update(known)) page.setRuns([...known.values()].map(({ run }) => run));
      else if (known.size === 0) page.faults.textContent = "No run here has measurements of an information plane.";
    } catch (error) {
      page.faults.textContent = `The runs could not be read: ${error.message}. Is TensorBoard still running?`;
    }
  };
  await ask();
  setInterval(() => document.visibilityState === "visible" && ask(), EVERY);
}

/** Bring the known runs up to date; returns whether anything is new. */
async function update(known) {
  const { runs } = await json("runs");
  const names = new Set(runs.map((one) => one.name));
  let news = false;
  for (const name of known.keys()) {
    if (names.has(name)) continue;
    known.delete(name);
    news = true;
  }
  const asked = runs.map(async ({ name, run, tag, version }) => {
    const before = known.get(name);
    if (before?.version === version) return;
    const { measurements } = await json("measurements", { run, tag });
    known.set(name, { run: new Run(name, measurements), version });
    news = true;
  });
  await Promise.all(asked);
  const order = runs.map((one) => [one.name, known.get(one.name)]);
  known.clear();
  for (const [name, one] of order) known.set(name, one);
  return news;
}
