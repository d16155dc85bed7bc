// The page with its data inside, one file.

import { Page } from "./page.js";
import { Run } from "./runs.js";

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.createElement("main");
document.body.prepend(main);
const embedded = new Page(main, location.hash, (hash) => `${location.href.split("#")[0]}#${hash}`);
embedded.setRuns(data.map(([name, measurements]) => new Run(name, measurements)));
