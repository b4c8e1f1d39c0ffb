// On a page of the site: each picture that can live gets a button. Only a reader who
// presses it (or the picture, or answers the question before it) loads anything.
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
  registration.active.postMessage([...new Set(ours)]);
}

// Brings a figure to life: what reveals the answer, or null where it could not start.
async function awaken(place, button) {
  button.disabled = true;
  const say = place.querySelector(".cf-loading");
  try {
    const { mount } = await import("./figure.js");
    const put = figure => "keep" in place.dataset
      ? button.parentElement.replaceWith(figure) : place.replaceChildren(figure);
    const reveal = await mount(place, { base: here.href, say, put });
    place.dataset.state = "live";
    keep().catch(() => {});  // without it the figure lives as long as the network does
    return reveal;
  } catch (error) {
    say.textContent = `This figure could not start here (${error.message}). ` +
      "The picture above stays as it is.";
    button.disabled = false;
    return null;
  }
}

for (const place of document.querySelectorAll(".cosmoflow-live")) {
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
  let started = null;
  const start = async () => {
    started ??= awaken(place, button);
    const reveal = await started;
    if (!reveal) started = null;
    return reveal;
  };
  button.addEventListener("click", async () => {
    if (await start()) place.querySelector(".cf-figure").focus({ preventScroll: true });
  });
  const question = place.querySelector(".cosmoflow-predict");
  if (question) bar.before(predict(question, async () => {
    const reveal = await start();
    place.querySelector(".cf-figure")?.scrollIntoView({ block: "nearest" });
    await reveal?.();
  }));
  picture?.addEventListener("click", () => button.click());
}
