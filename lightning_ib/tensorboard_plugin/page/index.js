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
  const connection = document.createElement("p");
  connection.className = "faults";
  page.faults.before(connection);
  let known = new Map(); // name → {run, version, until}
  let asking = false;
  const ask = async () => {
    // A frame behind another tab of TensorBoard has no width.
    if (asking || document.visibilityState !== "visible" || (known.size > 0 && root.clientWidth === 0)) return;
    asking = true;
    try {
      const { runs } = await json("runs");
      const before = known;
      known = new Map(await Promise.all(runs.map(async (one) => [one.name, await upToDate(one, before.get(one.name))])));
      const isNews = known.size !== before.size || [...known].some(([name, { version }]) => version !== before.get(name)?.version);
      if (isNews) page.setRuns([...known.values()].map(({ run }) => run));
      connection.textContent = known.size === 0 ? "No run here has measurements of an information plane." : "";
    } catch (error) {
      connection.textContent = `The runs could not be read: ${error.message}. Is TensorBoard still running?`;
    } finally {
      asking = false;
    }
  };
  await ask();
  setInterval(ask, EVERY);
}

/** A run with what was measured since it was last asked for; with a fault where it cannot be read. */
async function upToDate({ name, run, tag, version }, before) {
  if (before?.version === version) return before;
  try {
    const { measurements, until } = await json("measurements", { run, tag, after: before?.until ?? 0 });
    const made = before?.run ?? new Run(name);
    made.add(measurements);
    return { run: made, version, until };
  } catch (error) {
    const made = before?.run ?? new Run(name);
    made.fault = `${name} could not be read: ${error.message}.`;
    return { run: made, version: before?.version ?? "unread", until: before?.until ?? 0 };
  }
}
