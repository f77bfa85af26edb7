// Renders the page again when something happens. The server renders; here the difference is put into place, so that focus,
// selection and what is unfolded stay. Without this script the page is the same, as of when it was loaded.
"use strict";

(() => {
  // Shortest time between two renderings; a page that takes long is rendered less often.
  const PAUSE = 400;
  const live = document.getElementById("live");
  let main = document.getElementById("main");
  let skew = Number(main.dataset.now) - Date.now();
  let seen = main.dataset.live;
  let missed = 0;
  let lost = 0;
  let timer = 0;
  let fetching = false;
  let again = false;
  let pause = PAUSE;
  let finished = 0;

  const now = () => Date.now() + skew;
  const number = (id) => Number(id.slice(id.indexOf("-") + 1));
  const start = (id) => id.slice(0, id.indexOf("-"));

  // === Times ===

  // As `duration` of the server says it.
  function duration(millis) {
    const seconds = Math.floor(millis / 1000), minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
    if (millis < 10) return `${Math.floor(millis)} ms`;
    if (seconds < 10) return `${(Math.floor(millis / 10) / 100).toFixed(2)} s`;
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${minutes} min`;
    if (seconds < 86400) return `${hours} h ${minutes % 60} min`;
    return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  // While a second passes, tenths of one are noise.
  const ticking = (millis) => (millis < 10000 ? `${Math.max(0, Math.floor(millis / 1000))} s` : duration(millis));

  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    if (document.hidden) return;
    const at = now();
    for (const element of main.querySelectorAll("[data-at]")) say(element, `${ticking(at - element.dataset.at)} ago`);
    for (const element of main.querySelectorAll("[data-since]")) say(element, ticking(at - element.dataset.since));
    for (const element of main.querySelectorAll("[data-until]")) say(element, ticking(element.dataset.until - at));
    state();
  }

  function state() {
    const clock = new Date(now()).toISOString().slice(11, 19);
    const text = lost
      ? `connection lost ${ticking(Date.now() - lost)} ago, trying again`
      : `live, ${clock} UTC${missed ? `, caught up after ${missed} missed` : ""}`;
    live.className = lost ? "live lost" : "live on";
    say(live.firstElementChild, text);
  }

  // === Rendering ===

  const key = (node) => (node.nodeType === 1 ? node.id || node.dataset.key || node.nodeName : node.nodeName);

  // Makes `old` what `fresh` is.
  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    // What an order came to is said here and not there.
    if (old.nodeName === "OUTPUT" || old.isEqualNode(fresh)) return;
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      // What a person has unfolded stays so.
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    let next = old.firstChild;
    const later = new Map();
    for (let node = next; node; node = node.nextSibling) {
      const name = key(node);
      if (!later.has(name)) later.set(name, []);
      later.get(name).push(node);
    }
    for (const child of [...fresh.childNodes]) {
      const same = later.get(key(child))?.shift();
      if (!same) {
        const added = document.importNode(child, true);
        old.insertBefore(added, next);
        continue;
      }
      if (same === next) next = next.nextSibling;
      else old.insertBefore(same, next);
      morph(same, child);
    }
    for (const nodes of later.values()) for (const node of nodes) node.remove();
  }

  async function render() {
    timer = 0;
    if (fetching) { again = true; return; }
    fetching = true;
    again = false;
    const begun = performance.now(), address = location.href;
    try {
      const answer = await fetch(address, { headers: { accept: "text/html" } });
      const text = await answer.text();
      if (address !== location.href) { again = true; return; }
      if (answer.ok || answer.status === 404) show(text);
    } catch {
      // The stream tells when the server is there again.
    } finally {
      fetching = false;
      finished = performance.now();
      pause = Math.max(PAUSE, finished - begun);
      if (again) soon();
    }
  }

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) return;
    morph(main, fresh);
    morph(document.getElementById("counts"), page.getElementById("counts"));
    if (document.title !== page.title) document.title = page.title;
    skew = Number(fresh.dataset.now) - Date.now();
    tick();
    // The server may show what it had a moment before.
    if (start(fresh.dataset.live) === start(seen) && number(fresh.dataset.live) < number(seen)) again = true;
  }

  function soon() {
    if (timer || document.hidden) return;
    if (fetching) { again = true; return; }
    timer = setTimeout(render, Math.max(0, finished + pause - performance.now()));
  }

  function go(href, replace) {
    history[replace ? "replaceState" : "pushState"](null, "", href);
    pause = 0;
    clearTimeout(timer);
    timer = 0;
    if (fetching) again = true; else render();
  }

  // === What a person does ===

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const there = new URL(link.href);
    if (there.origin !== location.origin || there.pathname !== location.pathname || there.hash) return;
    event.preventDefault();
    const field = document.getElementById("filter");
    field.value = there.searchParams.get("filter") ?? "";
    go(there.href);
    scrollTo(0, 0);
  });
  addEventListener("popstate", () => go(location.href, true));

  const filter = document.getElementById("filter");
  let typing = 0;
  function search() {
    const there = new URL(location.pathname, location.href);
    if (filter.value.trim()) there.searchParams.set("filter", filter.value.trim());
    go(there.href, true);
  }
  filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 150); });
  document.getElementById("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input, textarea, select");
    if (event.key === "/" && !writes && !event.ctrlKey && !event.metaKey) { event.preventDefault(); filter.focus(); }
    if (event.key === "Escape" && event.target === filter) { filter.value = ""; search(); filter.blur(); }
  });

  async function copy(command) {
    if (!navigator.clipboard) return;
    await navigator.clipboard.writeText(command.textContent);
    command.dataset.copied = "";
    setTimeout(() => { delete command.dataset.copied; }, 1500);
  }
  main.addEventListener("click", (event) => {
    const command = event.target.closest("[data-copy]");
    if (command && !String(getSelection())) copy(command);
  });
  main.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("[data-copy]")) copy(event.target);
  });

  // An order: what becomes of it stands where it was given.
  main.addEventListener("submit", async (event) => {
    const form = event.target.closest(".act form");
    if (!form) return;
    event.preventDefault();
    const said = form.querySelector("output");
    said.textContent = "…";
    try {
      const answer = await fetch(form.action, { method: "POST" });
      const { status, error } = await answer.json();
      said.textContent = status === "success" ? "done" : error;
      if (status === "success") form.parentElement.open = false;
    } catch {
      said.textContent = "no answer";
    }
    soon();
  });

  // === Events ===

  function told(event) {
    if (event.lastEventId) seen = event.lastEventId;
    if (lost) { lost = 0; state(); }
    soon();
  }

  function connect() {
    const events = new EventSource(`api/v1/events?after=${encodeURIComponent(seen)}`);
    events.addEventListener("open", () => { lost = 0; state(); soon(); });
    events.addEventListener("message", told);
    events.addEventListener("reset", (event) => { missed = 0; told(event); });
    events.addEventListener("missed", (event) => { missed += JSON.parse(event.data).missed; told(event); });
    events.addEventListener("error", () => {
      lost = lost || Date.now();
      state();
      // After an answer that is no stream a browser gives up by itself.
      if (events.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
    });
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) { tick(); soon(); } });
  setInterval(tick, 1000);
  // Budgets and words change with time alone, too.
  setInterval(soon, 10000);
  tick();
  connect();
})();
