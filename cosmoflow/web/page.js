// On a page of the site: each picture that can live gets a button. Only a reader who
// presses it (or the picture, or answers the question before it) loads anything.
// @ts-check
import { predict } from "./predict.js";

const here = new URL(".", import.meta.url);

// The site's own files are kept from now on, for a reader who loses the network.
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  const registration = await navigator.serviceWorker.register(new URL("../sw.js", here));
  await navigator.serviceWorker.ready;
  const seen = performance.getEntriesByType("resource").map(entry => entry.name);
  const ours = [location.href.split("#")[0], ...seen].filter(url =>
    url.startsWith(location.origin));
  navigator.serviceWorker.addEventListener("message", () => {
    document.documentElement.dataset.kept = "";
  });
  registration.active?.postMessage([...new Set(ours)]);
}

/**
 * Brings a figure to life.
 * @param {HTMLElement} place
 * @param {HTMLButtonElement} button that was pressed
 * @param {HTMLElement} say where progress is told
 * @returns {Promise<(() => void | Promise<void>) | null>} reveals the answer; null where
 *   the figure could not start
 */
async function awaken(place, button, say) {
  button.disabled = true;
  try {
    const { mount } = await import("./figure.js");
    const put = (/** @type {HTMLElement} */ figure) => {
      button.parentElement?.replaceWith(figure);
      if (!("keep" in place.dataset)) place.querySelector(".wide, .still")?.remove();
    };
    const reveal = await mount(place, { base: here.href, say, put });
    place.dataset.state = "live";
    keep().catch(() => {});  // without it the figure lives as long as the network does
    return reveal;
  } catch (error) {
    const why = error instanceof Error ? error.message : error;
    say.textContent = `This figure could not start here (${why}). ` +
      "The picture above stays as it is.";
    button.disabled = false;
    return null;
  }
}

/** @type {NodeListOf<HTMLElement>} */
const places = document.querySelectorAll(".cosmoflow-live");
for (const place of places) {
  const picture = place.querySelector("img");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "cf-button cf-awaken";
  button.textContent = "Bring this picture to life";
  const say = document.createElement("p");
  say.className = "cf-loading";
  say.setAttribute("role", "status");
  say.textContent = `The model then runs in your browser: ${place.dataset.size} MB, once.`;
  const bar = document.createElement("div");
  bar.className = "cf-start";
  bar.append(button, say);
  place.append(bar);
  const figure = () => /** @type {HTMLElement | null} */ (place.querySelector(".cf-figure"));
  /** @type {ReturnType<typeof awaken> | null} */
  let started = null;
  const start = async () => {
    started ??= awaken(place, button, say);
    const reveal = await started;
    if (!reveal) started = null;
    return reveal;
  };
  button.addEventListener("click", async () => {
    if (await start()) figure()?.focus({ preventScroll: true });
  });
  /** @type {HTMLElement | null} */
  const question = place.querySelector(".cosmoflow-predict");
  if (question) bar.before(predict(question, async () => {
    const reveal = await start();
    figure()?.scrollIntoView({ block: "nearest" });
    await reveal?.();
  }));
  picture?.addEventListener("click", () => button.click());
}
