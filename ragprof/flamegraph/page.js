"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const graph = $("graph"), canvas = $("canvas"), pen = canvas.getContext("2d");
  const ROW = matchMedia("(pointer:coarse)").matches ? 26 : 19;
  const two = data.before !== null;
  let colours = {};

  // A tree: parents before children. value[i] = own[i] + cut[i] + its children's values.
  function callTree() {
    const n = data.parent.length;
    const tree = {
      frame: data.frame, parent: data.parent,
      own: data.own, cut: data.cut,
      beforeOwn: two ? data.before.own : null, beforeCut: two ? data.before.cut : null,
    };
    return finish(tree, n);
  }

  // Innermost functions first: the own weight of every box goes up the chain of its callers.
  function invertedTree(source) {
    const frame = [-1], parent = [-1], own = [0], beforeOwn = [0], index = [new Map()];
    const cut = [0], beforeCut = [0];
    for (let i = 0; i < source.parent.length; i++) {
      const a = source.own[i], b = two ? source.beforeOwn[i] : 0;
      cut[0] += source.cut[i];
      if (two) beforeCut[0] += source.beforeCut[i];
      if (!a && !b) continue;
      let at = 0;
      for (let j = i; j > 0; j = source.parent[j]) {
        let next = index[at].get(source.frame[j]);
        if (next === undefined) {
          next = frame.length;
          index[at].set(source.frame[j], next);
          index.push(new Map());
          frame.push(source.frame[j]); parent.push(at);
          own.push(0); beforeOwn.push(0); cut.push(0); beforeCut.push(0);
        }
        at = next;
      }
      own[at] += a; beforeOwn[at] += b;
    }
    return finish({ frame, parent, own, cut, beforeOwn, beforeCut }, frame.length);
  }

  function finish(tree, n) {
    const value = new Float64Array(n), before = new Float64Array(n);
    const depth = new Int32Array(n), children = Array.from({ length: n }, () => []);
    for (let i = n - 1; i >= 0; i--) {
      value[i] += tree.own[i] + tree.cut[i];
      if (two) before[i] += tree.beforeOwn[i] + tree.beforeCut[i];
      if (i) {
        value[tree.parent[i]] += value[i];
        before[tree.parent[i]] += before[i];
      }
    }
    for (let i = 1; i < n; i++) {
      depth[i] = depth[tree.parent[i]] + 1;
      children[tree.parent[i]].push(i);
    }
    const name = (i) => data.names[tree.frame[i]];
    for (const list of children) list.sort((a, b) => (name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : a - b));
    return { ...tree, n, value, before, depth, children, x: new Float64Array(n), w: new Float64Array(n) };
  }

  const normal = callTree();
  let inverted = null, tree = normal, focus = 0, chosen = 0, found = null, levels = 1;
  let colour = two ? "difference" : "module", width = "this";

  const size = (i) => (width === "before" ? tree.before[i] : tree.value[i]);

  // Positions as shares of the width: the focus and its callers fill it, the rest is not shown.
  function place() {
    tree.x.fill(0); tree.w.fill(0);
    for (let i = focus; i >= 0; i = tree.parent[i]) { tree.w[i] = 1; if (!i) break; }
    const whole = size(focus) || 1, stack = [focus];
    levels = tree.depth[focus] + 1;
    while (stack.length) {
      const at = stack.pop();
      let x = tree.x[at];
      for (const child of tree.children[at]) {
        const share = size(child) / whole;
        tree.x[child] = x; tree.w[child] = share;
        x += share;
        if (share > 0) {
          levels = Math.max(levels, tree.depth[child] + 1);
          stack.push(child);
        }
      }
    }
    $("spacer").style.height = levels * ROW + 8 + "px";
    $("reset").disabled = !focus && !$("search").value;
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = {};
    for (const name of data.palette) colours[name] = style.getPropertyValue("--" + name).trim();
  }

  const total = () => (width === "before" ? tree.before[0] : tree.value[0]) || 1;
  function change(i) {
    if (colour === "share") return tree.value[i] / (tree.value[0] || 1) - tree.before[i] / (tree.before[0] || 1);
    return (tree.value[i] - tree.before[i]) / (tree.value[0] || tree.before[0] || 1);
  }
  function colourName(i) {
    if (colour === "module") return i ? data.colours[tree.frame[i]] : "same-0";
    const by = change(i), strength = data.steps.filter((step) => Math.abs(by) >= step).length;
    return strength ? (by > 0 ? "more-" : "less-") + (strength - 1) : "same-0";
  }

  function draw() {
    const wide = graph.clientWidth, high = graph.clientHeight, ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio);
      canvas.style.width = wide + "px"; canvas.style.height = high + "px";
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    pen.font = "12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif";
    pen.textBaseline = "middle";
    const letter = pen.measureText("abcdefghijklmnopqrstuvwxyz._").width / 28;
    const top = graph.scrollTop, focusDepth = tree.depth[focus];
    for (let i = 0; i < tree.n; i++) {
      const y = tree.depth[i] * ROW + 4 - top, w = tree.w[i] * wide;
      if (w < 0.3 || y + ROW < 0 || y > high) continue;
      const x = tree.x[i] * wide, name = colourName(i), hit = found && found[i];
      pen.globalAlpha = tree.depth[i] < focusDepth ? 0.55 : found && !hit ? 0.45 : 1;
      pen.fillStyle = hit ? colours.found : colours[name];
      pen.fillRect(x, y, Math.max(0.4, w - (w > 3 ? 1 : 0)), ROW - 1);
      if (w > letter * 4) {
        const strong = hit ? "found-ink" : /^(more|less)-2/.test(name) ? "strong-ink" : "box-ink";
        pen.fillStyle = colours[strong];
        let room = Math.floor((w - 7) / letter), text = fit(label(i), room);
        while (text && pen.measureText(text).width > w - 6) text = fit(label(i), --room);
        pen.fillText(text, x + 4, y + ROW / 2);
      }
    }
    pen.globalAlpha = 1;
    if (document.activeElement === graph && tree.w[chosen] > 0) {
      pen.strokeStyle = colours.focus; pen.lineWidth = 2;
      pen.strokeRect(tree.x[chosen] * wide + 1, tree.depth[chosen] * ROW + 5 - top,
        Math.max(2, tree.w[chosen] * wide - 3), ROW - 3);
    }
  }
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  const label = (i) => (i ? data.names[tree.frame[i]] : "all");
  function fit(text, room) {
    if (text.length > room) text = text.slice(text.lastIndexOf(":") + 1);
    return text.length <= room ? text : room < 3 ? "" : text.slice(0, room - 1) + "…";
  }

  function amount(number, sign) {
    const scaled = Math.abs(number) * data.factor;
    const [unit, suffix] = data.units.find(([step]) => scaled >= step) || data.units[data.units.length - 1];
    const shown = scaled / unit, digits = shown >= 100 || Number.isInteger(shown) ? 0 : shown >= 10 ? 1 : 2;
    const mark = number < 0 ? "−" : sign && number > 0 ? "+" : "";
    return (mark + shown.toFixed(digits) + " " + suffix).trim();
  }
  const percent = (share, sign) => (share < 0 ? "−" : sign && share > 0 ? "+" : "") +
    (Math.abs(share) * 100).toFixed(Math.abs(share) >= 0.9995 ? 0 : Math.abs(share) >= 0.01 || !share ? 1 : 2) + " %";

  function facts(i) {
    const lines = [`${amount(tree.value[i])}, ${percent(tree.value[i] / (tree.value[0] || 1))} of the whole` +
      (tree.own[i] ? `; itself ${amount(tree.own[i])}` : "")];
    if (two) lines.push(`baseline ${amount(tree.before[i])}, difference ${amount(tree.value[i] - tree.before[i], true)}`);
    if (tree.cut[i]) lines.push(`${amount(tree.cut[i])} in boxes too small to draw`);
    const where = i ? data.places[tree.frame[i]] : "";
    if (where) lines.push(where);
    return lines;
  }
  function describe(element, i) {
    const name = document.createElement("b");
    name.textContent = label(i);
    element.replaceChildren(name);
    for (const line of facts(i)) {
      element.append(line, element.id === "tip" ? document.createElement("br") : " · ");
    }
    element.lastChild.remove();
    if (element.id !== "tip") name.after(" ");
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const depth = Math.floor((event.clientY - box.top + graph.scrollTop - 4) / ROW);
    for (let i = 0; i < tree.n; i++) {
      if (tree.depth[i] === depth && tree.w[i] > 0 && share >= tree.x[i] && share < tree.x[i] + tree.w[i]) return i;
    }
    return -1;
  }

  function choose(i) {
    chosen = i;
    describe($("details"), i);
    const y = tree.depth[i] * ROW;
    if (y < graph.scrollTop) graph.scrollTop = y;
    if (y + ROW + 8 > graph.scrollTop + graph.clientHeight) graph.scrollTop = y + ROW + 8 - graph.clientHeight;
    redraw();
  }
  function zoom(i) {
    if (!(size(i) > 0)) return;
    focus = i;
    place(); choose(i); search();
    document.body.dataset.focus = label(i);
  }

  function search() {
    const text = $("search").value;
    $("search").setAttribute("aria-invalid", "false");
    $("reset").disabled = !focus && !text;
    found = null;
    $("share").textContent = "";
    if (text) {
      let pattern;
      try { pattern = new RegExp(text, "i"); } catch {
        $("search").setAttribute("aria-invalid", "true");
        $("share").textContent = "not a regular expression";
        redraw();
        return;
      }
      const matches = data.names.map((name) => pattern.test(name));
      found = new Uint8Array(tree.n);
      const inside = new Uint8Array(tree.n);
      let sum = 0, boxes = 0;
      for (let i = 1; i < tree.n; i++) {
        inside[i] = inside[tree.parent[i]];
        if (!matches[tree.frame[i]]) continue;
        found[i] = 1;
        boxes++;
        if (!inside[i]) sum += size(i); // a box below a match is already counted
        inside[i] = 1;
      }
      $("share").textContent = boxes ? `${percent(sum / total())} matched` : "no match";
    }
    redraw();
  }

  function legend() {
    const rows = colour === "module"
      ? data.legend
      : [...[2, 1, 0].map((k) => ["less-" + k, "−" + percent(data.steps[k])]), ["same-0", "same"],
         ...[0, 1, 2].map((k) => ["more-" + k, "+" + percent(data.steps[k])])];
    $("legend").replaceChildren(...rows.map(([name, text]) => {
      const entry = document.createElement("span"), box = document.createElement("i");
      box.style.background = `var(--${name})`;
      entry.append(box, text);
      return entry;
    }));
  }

  function reset() {
    $("search").value = "";
    zoom(0);
  }
  function turn() {
    if (tree === normal) tree = inverted = inverted || invertedTree(normal);
    else tree = normal;
    $("invert").setAttribute("aria-pressed", String(tree !== normal));
    focus = 0;
    zoom(0);
  }

  // Moves: up to the caller, down to the widest callee, left and right among siblings.
  function move(key) {
    const up = tree.parent[chosen];
    if (key === "ArrowUp") return up >= 0 ? up : chosen;
    if (key === "ArrowDown") {
      return tree.children[chosen].reduce((best, i) => (size(i) > 0 && (best < 0 || size(i) > size(best)) ? i : best), -1);
    }
    if (up < 0) return chosen;
    const row = tree.children[up].filter((i) => tree.w[i] > 0);
    return row[row.indexOf(chosen) + (key === "ArrowLeft" ? -1 : 1)];
  }
  graph.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) {
      const next = move(event.key);
      if (next !== undefined && next >= 0) choose(next);
    } else if (event.key === "Enter" || event.key === " ") zoom(chosen);
    else if (event.key === "Home") choose(focus);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target === $("search");
    if (event.key === "Escape") { reset(); graph.focus(); }
    else if (event.key === "/" && !typing) { $("search").focus(); $("search").select(); }
    else if (event.key === "Enter" && typing) graph.focus();
    else return;
    event.preventDefault();
  });

  const tip = $("tip");
  canvas.addEventListener("mousemove", (event) => {
    const i = at(event);
    tip.hidden = i < 0;
    if (i < 0) return;
    describe(tip, i);
    const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
    const below = event.clientY + 18 + tip.offsetHeight > innerHeight;
    tip.style.left = Math.max(4, right ? event.clientX - tip.offsetWidth - 10 : event.clientX + 14) + "px";
    tip.style.top = Math.max(4, below ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const i = at(event);
    graph.focus({ preventScroll: true });
    tip.hidden = true;
    if (i >= 0) zoom(i);
  });
  graph.addEventListener("scroll", () => { tip.hidden = true; redraw(); });
  graph.addEventListener("focus", redraw);
  graph.addEventListener("blur", redraw);
  $("search").addEventListener("input", search);
  $("reset").addEventListener("click", reset);
  $("invert").addEventListener("click", turn);
  if (two) {
    $("colour").addEventListener("change", (event) => { colour = event.target.value; legend(); redraw(); });
    $("width").addEventListener("change", (event) => { width = event.target.value; zoom(0); });
  }
  const restyle = () => { readColours(); redraw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  matchMedia("print").addEventListener("change", restyle);
  new ResizeObserver(draw).observe(graph);

  readColours();
  legend();
  zoom(0);
  document.body.dataset.ready = "true";
})();
