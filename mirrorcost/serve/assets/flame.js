"use strict";
(() => {
  const box = document.getElementById("flame");
  if (!box) return;
  const data = JSON.parse(document.getElementById("flame-data").textContent);
  const tip = document.getElementById("tip"), state = document.getElementById("state");
  const search = document.getElementById("search"), reset = document.getElementById("reset");
  const ROW = 20, SMALLEST = 1.5; // pixels

  // Adds up what a frame and all below it cost: b and m in ns per write, vb and
  // vm the variances that sampling gives them, st the ns of each stage.
  function total(f, parent, depth) {
    f.parent = parent; f.depth = depth; f.b = f.m = f.v = f.big = 0;
    f.st = [new Map(), new Map()];
    for (const [stage, b, m, nb, nm] of f.s || []) {
      f.b += b; f.m += m; f.big += Math.max(b, m);
      if (nb > 0) f.v += b * b / nb;
      if (nm > 0) f.v += m * m / nm;
      if (b) f.st[0].set(stage, (f.st[0].get(stage) || 0) + b);
      if (m) f.st[1].set(stage, (f.st[1].get(stage) || 0) + m);
    }
    for (const c of f.c || []) {
      total(c, f, depth + 1);
      f.b += c.b; f.m += c.m; f.v += c.v; f.big += c.big;
      for (const leg of [0, 1]) for (const [stage, ns] of c.st[leg]) f.st[leg].set(stage, (f.st[leg].get(stage) || 0) + ns);
    }
  }
  total(data.root, null, 0);

  let view = "mirror", widthBy = "max", zoomed = data.root, current = data.root, words = "";

  const width = f => view === "baseline" ? f.b : view === "mirror" || widthBy === "mirror" ? f.m : f.big;
  function ns(v) {
    const a = Math.abs(v);
    const [d, u] = a >= 999500 ? [1e6, "ms"] : a >= 999.5 ? [1e3, "µs"] : [1, "ns"];
    const x = v / d;
    return x.toFixed(d === 1 ? (a < 10 ? 1 : 0) : (Math.abs(x) < 10 ? 2 : 1)) + " " + u;
  }
  const signed = v => (v > 0 ? "+" : "") + ns(v);
  // Two standard errors of sampling: less than that is no difference shown.
  const shown = f => Math.abs(f.m - f.b) > 2 * Math.sqrt(f.v);

  function stageOf(f) {
    const st = f.st[view === "baseline" ? 0 : 1], all = view === "baseline" ? f.b : f.m;
    for (const [stage, part] of st) if (part >= all * 2 / 3) return "s" + Math.min(stage, 11);
    return "mix";
  }
  function difference(f) {
    if (!shown(f)) return "d0";
    const ratio = f.b > 0 ? f.m / f.b : Infinity;
    if (ratio < 1) return ratio < 1 / 3 ? "d-3" : ratio < 2 / 3 ? "d-2" : "d-1";
    return ratio > 3 ? "d3" : ratio > 1.5 ? "d2" : "d1";
  }
  const found = f => words !== "" && f !== data.root && f.n.toLowerCase().includes(words);

  function draw() {
    // What is zoomed to may cost nothing in another view.
    while (zoomed.parent && width(zoomed) <= 0) zoomed = zoomed.parent;
    const frames = document.createDocumentFragment();
    const across = box.clientWidth || 1, whole = width(zoomed) || 1;
    let deepest = 0;
    const add = (f, x, w) => {
      const el = document.createElement("div");
      el.className = "frame " + (view === "difference" ? difference(f) : stageOf(f));
      if (f.depth < zoomed.depth) el.classList.add("above");
      if (found(f)) el.classList.add("found");
      el.setAttribute("role", "treeitem");
      el.setAttribute("aria-level", f.depth + 1);
      el.setAttribute("aria-label", describe(f));
      el.tabIndex = -1;
      el.style.left = 100 * x + "%"; el.style.width = 100 * w + "%"; el.style.top = f.depth * ROW + "px";
      if (w * across > 26) el.textContent = f.n;
      el.frame = f; f.el = el;
      deepest = Math.max(deepest, f.depth);
      frames.append(el);
    };
    const below = (f, x) => {
      const w = width(f) / whole;
      if (w * across < SMALLEST) return;
      add(f, x, w);
      for (const c of f.c || []) { below(c, x); x += width(c) / whole; }
    };
    forget(data.root);
    for (let f = zoomed.parent; f; f = f.parent) add(f, 0, 1);
    below(zoomed, 0);
    box.replaceChildren(frames);
    box.style.height = (deepest + 1) * ROW + "px";
    box.classList.toggle("searching", words !== "");
    if (!current.el) current = zoomed;
    if (current.el) current.el.tabIndex = 0;
    reset.disabled = zoomed === data.root;
    say();
  }
  function forget(f) { f.el = null; for (const c of f.c || []) forget(c); }

  function say() {
    const f = zoomed;
    const parts = [(f === data.root ? "All of a write" : f.n) + ": "];
    if (view === "difference") parts.push(`${ns(f.b)} to ${ns(f.m)}, ` + (shown(f) ? signed(f.m - f.b) : "no difference shown"));
    else parts.push(ns(width(f)) + (f === data.root ? "" : `, ${share(f)} of a write`));
    if (words !== "") {
      const sum = matched(f);
      parts.push(`; found ${ns(sum)}, ${(100 * sum / (width(f) || 1)).toFixed(1)} %`);
    }
    state.textContent = parts.join("");
  }
  // A match inside a match counts once.
  const matched = f => found(f) ? width(f) : (f.c || []).reduce((sum, c) => sum + matched(c), 0);
  const share = f => (100 * width(f) / (width(data.root) || 1)).toFixed(1) + " %";
  function describe(f) {
    if (view !== "difference") return `${f.n}, ${ns(width(f))} a write, ${share(f)}`;
    return `${f.n}, baseline ${ns(f.b)}, mirror ${ns(f.m)}, ` + (shown(f) ? "difference " + signed(f.m - f.b) : "no difference shown");
  }

  function row(table, name, value) {
    const tr = table.insertRow(), th = document.createElement("th");
    th.textContent = name; tr.append(th);
    tr.insertCell().textContent = value;
  }
  function show(f, x, y) {
    const name = document.createElement("div"), table = document.createElement("table"), stages = document.createElement("div");
    name.className = "name"; name.textContent = f.n;
    row(table, "baseline", ns(f.b)); row(table, "mirror", ns(f.m));
    row(table, "difference", shown(f) ? signed(f.m - f.b) : `${signed(f.m - f.b)}, within sampling error`);
    const st = [...f.st[view === "baseline" ? 0 : 1]].sort((a, b) => b[1] - a[1]);
    const all = st.reduce((sum, e) => sum + e[1], 0) || 1;
    stages.className = "stages";
    stages.textContent = st.slice(0, 3).map(([s, v]) => `${data.stages[s]} ${(100 * v / all).toFixed(0)} %`).join(", ");
    tip.replaceChildren(name, table, stages);
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (y + 22 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 12) : y + 20) + "px";
  }
  const hide = () => { tip.hidden = true; };

  function zoom(f, focus) {
    zoomed = current = f;
    hide(); draw();
    if (focus && f.el) f.el.focus({preventScroll: true});
  }
  function go(f) {
    if (!f || !f.el) return;
    if (current.el) current.el.tabIndex = -1;
    current = f;
    f.el.tabIndex = 0; f.el.focus();
  }
  const drawn = list => list.filter(f => f.el);
  function keyed(e) {
    const f = e.target.frame;
    if (!f) return;
    const beside = f.parent ? drawn(f.parent.c) : [f], at = beside.indexOf(f);
    switch (e.key) {
      case "ArrowUp": go(f.parent); break;
      case "ArrowDown": go(drawn(f.c || [])[0]); break;
      case "ArrowLeft": go(beside[at - 1]); break;
      case "ArrowRight": go(beside[at + 1]); break;
      case "Home": go(data.root); break;
      case "Enter": case " ": zoom(f, true); break;
      case "Escape": zoom(data.root, true); break;
      default: return;
    }
    e.preventDefault();
  }
  box.addEventListener("click", e => { if (e.target.frame) zoom(e.target.frame, false); });
  box.addEventListener("keydown", keyed);
  box.addEventListener("pointermove", e => { if (e.target.frame) show(e.target.frame, e.clientX, e.clientY); else hide(); });
  box.addEventListener("pointerleave", hide);
  box.addEventListener("focusin", e => {
    if (!e.target.frame || !e.target.matches(":focus-visible")) return;
    const at = e.target.getBoundingClientRect();
    show(e.target.frame, Math.max(at.left, 0), at.bottom - 18);
  });
  box.addEventListener("focusout", hide);
  addEventListener("scroll", hide, {passive: true});
  reset.addEventListener("click", () => zoom(data.root, false));
  search.addEventListener("input", () => { words = search.value.trim().toLowerCase(); draw(); });
  search.addEventListener("keydown", e => { if (e.key === "Escape") { search.value = words = ""; draw(); } });

  // A group of radio buttons: one is checked and reachable, arrows move.
  function choose(group, attribute, chosen) {
    const buttons = [...group.querySelectorAll("button")];
    const check = button => {
      for (const b of buttons) {
        b.setAttribute("aria-checked", b === button);
        b.tabIndex = b === button ? 0 : -1;
      }
      chosen(button.dataset[attribute]);
      draw();
    };
    for (const [i, b] of buttons.entries()) {
      b.tabIndex = b.getAttribute("aria-checked") === "true" ? 0 : -1;
      b.addEventListener("click", () => check(b));
      b.addEventListener("keydown", e => {
        const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[e.key];
        if (!step) return;
        const next = buttons[(i + step + buttons.length) % buttons.length];
        next.focus(); check(next);
        e.preventDefault();
      });
    }
  }
  const [views, widths] = document.querySelectorAll(".switch");
  choose(views, "view", v => {
    view = v;
    widths.hidden = document.getElementById("key-difference").hidden = v !== "difference";
    document.getElementById("key-stages").hidden = v === "difference";
  });
  choose(widths, "width", v => { widthBy = v; });
  for (const key of document.querySelectorAll("[data-stage]")) {
    const stage = Number(key.dataset.stage);
    key.hidden = !data.root.st[0].has(stage) && !data.root.st[1].has(stage);
  }
  let seen = 0;
  new ResizeObserver(() => { if (box.clientWidth !== seen) { seen = box.clientWidth; draw(); } }).observe(box);
})();
