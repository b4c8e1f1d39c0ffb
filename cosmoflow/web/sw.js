// Keeps what a reader has seen of the site, so that it works without a network. What
// never changes under its address (engine, models and maps) comes from the cache, all else
// from the network first.
const CACHE = "cosmoflow-VERSION";
const FIXED = /\/live\/(engine|models|maps)\//;

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", event => event.waitUntil((async () => {
  const old = (await caches.keys()).filter(k => k.startsWith("cosmoflow-") && k !== CACHE);
  await Promise.all(old.map(key => caches.delete(key)));
  await self.clients.claim();
})()));

async function fromNetwork(request, cache) {
  const response = await fetch(request);
  if (response.status === 200) await cache.put(request, response.clone());
  return response;
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = () => cache.match(request, { ignoreVary: true });
  if (FIXED.test(request.url)) return await kept() ?? fromNetwork(request, cache);
  try {
    return await fromNetwork(request, cache);
  } catch (error) {
    const found = await kept();
    if (!found) throw error;
    return found;
  }
}

self.addEventListener("fetch", event => {
  const { request } = event, ours = new URL(request.url).origin === self.location.origin;
  if (request.method === "GET" && ours) event.respondWith(answer(request));
});

// The page names what it loaded before this worker was there.
self.addEventListener("message", event => event.waitUntil((async () => {
  const cache = await caches.open(CACHE);
  await Promise.all(event.data.map(async url => {
    if (!await cache.match(url)) await cache.add(url).catch(() => {});
  }));
  event.source.postMessage("kept");
})()));
