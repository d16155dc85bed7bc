// The page in a window of its own: the address that a copied link has.

import { render } from "./index.js";

render();
